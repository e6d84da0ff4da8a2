//! `#[dsm::main]`: a `main` that has joined a session.

use crate::options::{each, equals};
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, Expr, FnArg, Ident, Item, ItemFn, LitStr, Path, Type, parse_quote};

const THERE_ARE: &str = "there are `session = \"name\"`, `expect = number` and `crate = path`";

#[derive(Default)]
struct Options {
    session: Option<LitStr>,
    expect: Option<Expr>,
    krate: Option<Path>,
}

/// Expands `#[dsm::main(options)] fn main(session: &Session) { ... }`.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Vec::new();
    let options = parse(options, &mut errors);
    let function = match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Fn(function)) => Some(function),
        Ok(other) => {
            errors.push(Error::new(other.span(), "`#[dsm::main]` goes on a function: `fn main(session: &Session)`"));
            None
        }
        Err(error) => {
            errors.push(error);
            None
        }
    };
    if let Some(function) = &function {
        check(function, &mut errors);
    }
    match (function, errors.into_iter().reduce(combine)) {
        (Some(function), None) => written(&function, &options),
        (Some(function), Some(error)) => {
            let error = error.into_compile_error();
            if function.sig.ident == "main" {
                // A `main` remains, so that its absence is no error beside the others; and the function itself in it, so
                // that what it uses is used.
                let name = &function.sig.ident;
                quote!(fn #name() { #[allow(dead_code)] #function } #error)
            } else {
                quote!(#function #error)
            }
        }
        (None, error) => {
            let error = error.map(Error::into_compile_error);
            quote!(#item #error)
        }
    }
}

fn combine(mut all: Error, error: Error) -> Error {
    all.combine(error);
    all
}

fn check(function: &ItemFn, errors: &mut Vec<Error>) {
    let signature = &function.sig;
    if signature.ident != "main" {
        errors.push(Error::new(signature.ident.span(), "`#[dsm::main]` goes on the function `main`"));
    }
    if let Some(word) = &signature.asyncness {
        errors
            .push(Error::new(word.span, "`main` cannot be `async`: nothing would run it; block on a future inside it"));
    }
    if !signature.generics.params.is_empty() {
        errors.push(Error::new(signature.generics.span(), "`main` cannot have parameters for types or lifetimes"));
    }
    if signature.inputs.len() != 1 {
        let span =
            if signature.inputs.is_empty() { signature.paren_token.span.join() } else { signature.inputs.span() };
        errors.push(Error::new(span, "`main` takes one argument here, the session: `session: &Session`"));
    } else if let Some(FnArg::Typed(argument)) = signature.inputs.first()
        && !may_be_borrowed(&argument.ty)
    {
        errors.push(Error::new_spanned(&argument.ty, "`main` borrows its session: `session: &Session`"));
    }
}

/// Whether this may be `&Session`, under whatever name.
fn may_be_borrowed(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => reference.mutability.is_none(),
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident != "Session"),
        _ => true,
    }
}

fn written(function: &ItemFn, options: &Options) -> TokenStream {
    let krate = options.krate.clone().unwrap_or_else(|| parse_quote!(::dsm));
    let session = match &options.session {
        Some(name) => quote!(::core::option::Option::Some(#name)),
        None => quote!(::core::option::Option::None),
    };
    let expect = match &options.expect {
        Some(number) => quote!(::core::option::Option::Some(#number)),
        None => quote!(::core::option::Option::None),
    };
    // What is wrong with the argument's or the result's type is said at the signature.
    let (signature, vis) = (&function.sig, &function.vis);
    let span = signature.inputs.span().resolved_at(Span::mixed_site());
    let name = Ident::new("main", function.sig.ident.span());
    let inner = quote_spanned!(span=> main);
    quote! {
        #vis fn #name() -> ::std::process::ExitCode {
            #function
            #krate::__private::run_main(#session, #expect, #inner)
        }
    }
}

fn parse(tokens: TokenStream, errors: &mut Vec<Error>) -> Options {
    let mut options = Options::default();
    each(tokens, errors, |key, input, errors| {
        let is_twice = match key.to_string().as_str() {
            "session" => {
                equals(key, input, THERE_ARE)?;
                options.session.replace(input.parse()?).is_some()
            }
            "expect" => {
                equals(key, input, THERE_ARE)?;
                options.expect.replace(input.parse()?).is_some()
            }
            "crate" => {
                equals(key, input, THERE_ARE)?;
                options.krate.replace(input.call(Path::parse_mod_style)?).is_some()
            }
            other => return Err(Error::new(key.span(), format!("unknown option `{other}`: {THERE_ARE}"))),
        };
        if is_twice {
            errors.push(Error::new(key.span(), format!("option `{key}` is given twice")));
        }
        Ok(())
    });
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(options: TokenStream, item: TokenStream) -> String {
        expand(options, item).to_string()
    }

    #[test]
    fn main_is_wrapped() {
        let text = text(
            quote!(session = "game", expect = 2 + 2),
            quote!(
                fn main(session: &Session) {}
            ),
        );
        assert!(
            text.starts_with("fn main () -> :: std :: process :: ExitCode { fn main (session : & Session) { }"),
            "{text}"
        );
        assert!(text.contains("run_main (:: core :: option :: Option :: Some (\"game\") , "), "{text}");
        assert!(text.contains("Some (2 + 2) , main)"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_said_at_once_and_a_main_remains() {
        let found = text(
            quote!(session = "a", session = "b", rank, expect),
            quote!(
                async fn main<T>() {}
            ),
        );
        for part in [
            "given twice",
            "unknown option `rank`",
            "`expect` needs a value",
            "cannot be `async`",
            "parameters for types",
            "takes one argument",
            "fn main () { #",
        ] {
            assert!(found.contains(part), "{part}: {found}");
        }
        assert!(
            text(
                quote!(),
                quote!(
                    struct Main;
                )
            )
            .contains("goes on a function")
        );
        assert!(
            text(
                quote!(),
                quote!(
                    fn start(s: &Session) {}
                )
            )
            .contains("goes on the function `main`")
        );
    }
}

//! `#[dsm::main]`: a `main` that has joined a session.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Error, Expr, Ident, Item, ItemFn, LitStr, Path, Token, parse_quote};

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
            // A `main` remains, so that its absence is no error beside the others.
            let (name, error) = (&function.sig.ident, error.into_compile_error());
            quote!(fn #name() {} #error)
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
    let signature = &function.sig;
    let span = signature.inputs.span().resolved_at(Span::mixed_site());
    let name = Ident::new("main", function.sig.ident.span());
    let inner = quote_spanned!(span=> main);
    quote! {
        fn #name() -> ::std::process::ExitCode {
            #function
            #krate::__private::run_main(#session, #expect, #inner)
        }
    }
}

fn parse(tokens: TokenStream, errors: &mut Vec<Error>) -> Options {
    let mut options = Options::default();
    let parser = |input: ParseStream<'_>| {
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            let twice = match key.to_string().as_str() {
                "session" | "expect" | "crate" if !input.peek(Token![=]) => {
                    return Err(Error::new(key.span(), format!("option `{key}` needs a value: {THERE_ARE}")));
                }
                "session" => {
                    input.parse::<Token![=]>()?;
                    options.session.replace(input.parse()?).is_some()
                }
                "expect" => {
                    input.parse::<Token![=]>()?;
                    options.expect.replace(input.parse()?).is_some()
                }
                "crate" => {
                    input.parse::<Token![=]>()?;
                    options.krate.replace(input.call(Path::parse_mod_style)?).is_some()
                }
                other => return Err(Error::new(key.span(), format!("unknown option `{other}`: {THERE_ARE}"))),
            };
            if twice {
                errors.push(Error::new(key.span(), format!("option `{key}` is given twice")));
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(())
    };
    if let Err(error) = parser.parse2(tokens) {
        errors.push(error);
    }
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
            quote!(session = "a", session = "b"),
            quote!(
                async fn main<T>() {}
            ),
        );
        for part in ["given twice", "cannot be `async`", "parameters for types", "takes one argument", "fn main () { }"]
        {
            assert!(found.contains(part), "{part}: {found}");
        }
        assert!(
            text(
                quote!(rank = 1),
                quote!(
                    fn main(s: &Session) {}
                )
            )
            .contains("unknown option `rank`")
        );
        assert!(
            text(
                quote!(expect),
                quote!(
                    fn main(s: &Session) {}
                )
            )
            .contains("`expect` needs a value")
        );
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

//! The options between the parentheses of `#[dsm::shared(...)]`.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Ident, LitStr, Path, Token, parse_quote};

const THERE_ARE: &str = "there are `protocol = \"replicated\"` and `crate = path`";

/// What was asked for, with defaults for what was not.
pub(crate) struct Options {
    /// Where the crate `dsm` is.
    pub(crate) krate: Path,
}

/// Reads the options. What is wrong with them goes to `errors`, and the defaults take its place.
pub(crate) fn parse(tokens: TokenStream, errors: &mut Vec<Error>) -> Options {
    let mut krate = None;
    let mut protocol = None;
    let parser = |input: ParseStream<'_>| {
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            match key.to_string().as_str() {
                "crate" | "protocol" if !input.peek(Token![=]) => {
                    errors.push(Error::new(key.span(), format!("option `{key}` needs a value: {THERE_ARE}")));
                    skip_to_comma(input);
                }
                "crate" => {
                    input.parse::<Token![=]>()?;
                    let path = input.call(Path::parse_mod_style)?;
                    set(&mut krate, path, &key, errors);
                }
                "protocol" => {
                    input.parse::<Token![=]>()?;
                    let name: LitStr = input.parse()?;
                    check_protocol(&name, errors);
                    set(&mut protocol, name, &key, errors);
                }
                other => {
                    errors.push(Error::new(key.span(), format!("unknown option `{other}`: {THERE_ARE}")));
                    skip_to_comma(input);
                }
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
    Options { krate: krate.unwrap_or_else(|| parse_quote!(::dsm)) }
}

fn set<T>(option: &mut Option<T>, value: T, key: &Ident, errors: &mut Vec<Error>) {
    if option.replace(value).is_some() {
        errors.push(Error::new(key.span(), format!("option `{key}` is given twice")));
    }
}

fn check_protocol(name: &LitStr, errors: &mut Vec<Error>) {
    match name.value().as_str() {
        "replicated" => {}
        other => {
            let message = format!("unknown protocol `{other}`: at present the only one is `replicated`");
            errors.push(Error::new(name.span(), message));
        }
    }
}

fn skip_to_comma(input: ParseStream<'_>) {
    while !input.is_empty() && !input.peek(Token![,]) {
        // A token tree can always be parsed where there is one.
        let _ = input.parse::<proc_macro2::TokenTree>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::{ToTokens, quote};

    fn parsed(tokens: TokenStream) -> (String, Vec<String>) {
        let mut errors = Vec::new();
        let options = parse(tokens, &mut errors);
        (options.krate.to_token_stream().to_string(), errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults() {
        assert_eq!(parsed(quote!()), (":: dsm".to_owned(), vec![]));
        assert_eq!(parsed(quote!(protocol = "replicated",)), (":: dsm".to_owned(), vec![]));
    }

    #[test]
    fn the_crate_can_be_elsewhere() {
        assert_eq!(parsed(quote!(crate = crate)).0, "crate");
        assert_eq!(parsed(quote!(protocol = "replicated", crate = ::my::dsm)).0, ":: my :: dsm");
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let (_, errors) = parsed(quote!(size = 3 + 4, protocol = "paged", fast, crate = a, crate = b));
        assert_eq!(errors.len(), 4, "{errors:?}");
        assert!(errors[0].contains("unknown option `size`"));
        assert!(errors[1].contains("unknown protocol `paged`"));
        assert!(errors[2].contains("unknown option `fast`"));
        assert!(errors[3].contains("`crate` is given twice"));
        let (krate, errors) = parsed(quote!(crate, protocol, crate = a));
        assert_eq!((krate.as_str(), errors.len()), ("a", 2), "{errors:?}");
        assert!(errors[0].contains("`crate` needs a value"));
    }
}

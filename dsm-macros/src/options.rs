//! The options between the parentheses of `#[dsm::shared(...)]`.

use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Error, Ident, LitInt, LitStr, Path, Token, parse_quote};

const THERE_ARE: &str = "there are `protocol = \"replicated\"`, `name = \"...\"`, `version = 1` and `crate = path`";

/// How long a type's name may be, in bytes.
const LONGEST_NAME: usize = 200;

/// What was asked for, with defaults for what was not.
pub(crate) struct Options {
    /// Where the crate `dsm` is.
    pub(crate) krate: Path,
    /// What the type is called in the layout, if not as in the program.
    pub(crate) name: Option<LitStr>,
    /// The version of the declaration; 0 if none is given.
    pub(crate) version: u32,
}

/// Reads the options. What is wrong with them goes to `errors`, and the defaults take its place.
pub(crate) fn parse(tokens: TokenStream, errors: &mut Vec<Error>) -> Options {
    let mut krate = None;
    let (mut protocol, mut called, mut version) = (None, None, None);
    let parser = |input: ParseStream<'_>| {
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            match key.to_string().as_str() {
                "crate" | "protocol" | "name" | "version" if !input.peek(Token![=]) => {
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
                "name" => {
                    input.parse::<Token![=]>()?;
                    let text: LitStr = input.parse()?;
                    if text.value().is_empty() || text.value().len() > LONGEST_NAME {
                        let message = format!("a name has 1 to {LONGEST_NAME} bytes");
                        errors.push(Error::new(text.span(), message));
                    }
                    set(&mut called, text, &key, errors);
                }
                "version" => {
                    input.parse::<Token![=]>()?;
                    let number: LitInt = input.parse()?;
                    match number.base10_parse::<u32>() {
                        Ok(0) => errors.push(Error::new(number.span(), "the first version is 1")),
                        Ok(given) => set(&mut version, given, &key, errors),
                        Err(error) => errors.push(error),
                    }
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
    let krate = krate.unwrap_or_else(|| parse_quote!(::dsm));
    Options { krate, name: called, version: version.unwrap_or_default() }
}

/// What was asked for of a field, by `#[dsm(...)]`.
#[derive(Default)]
pub(crate) struct FieldOptions {
    /// It gets no accessors.
    pub(crate) skips_accessors: bool,
    /// It gets no accessors that store.
    pub(crate) is_read_only: bool,
    /// It lies on lines of its own.
    pub(crate) is_aligned: bool,
    /// What it is called everywhere but in the struct itself.
    pub(crate) rename: Option<Ident>,
}

const OF_A_FIELD: &str = "there are `skip_accessors`, `read_only`, `rename = \"...\"` and `align = 64`";

/// Takes the options of a field out of its attributes.
pub(crate) fn of_field(attributes: &mut Vec<Attribute>, errors: &mut Vec<Error>) -> FieldOptions {
    let mut options = FieldOptions::default();
    attributes.retain(|attribute| {
        let is_ours = attribute.path().is_ident("dsm");
        if is_ours && let Err(error) = attribute.parse_args_with(|input: ParseStream<'_>| options.read(input, errors)) {
            errors.push(error);
        }
        !is_ours
    });
    options
}

impl FieldOptions {
    fn read(&mut self, input: ParseStream<'_>, errors: &mut Vec<Error>) -> syn::Result<()> {
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            match key.to_string().as_str() {
                "skip_accessors" => self.skips_accessors = true,
                "read_only" => self.is_read_only = true,
                "rename" | "align" if !input.peek(Token![=]) => {
                    errors.push(Error::new(key.span(), format!("option `{key}` needs a value: {OF_A_FIELD}")));
                    skip_to_comma(input);
                }
                "rename" => {
                    input.parse::<Token![=]>()?;
                    let text: LitStr = input.parse()?;
                    match text.parse_with(Ident::parse_any) {
                        Ok(name) => set(&mut self.rename, name, &key, errors),
                        Err(_) => errors.push(Error::new(text.span(), "this cannot be the name of a field")),
                    }
                }
                "align" => {
                    input.parse::<Token![=]>()?;
                    let number: LitInt = input.parse()?;
                    if number.base10_parse::<u64>().ok() != Some(64) {
                        let message = "a field can be on lines of its own, which are 64 bytes: `align = 64`";
                        errors.push(Error::new(number.span(), message));
                    }
                    self.is_aligned = true;
                }
                other => {
                    errors.push(Error::new(key.span(), format!("unknown option `{other}`: {OF_A_FIELD}")));
                    skip_to_comma(input);
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(())
    }
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

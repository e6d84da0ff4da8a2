//! The options between the parentheses of `#[dsm::shared(...)]`.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Attribute, Error, Ident, LitInt, LitStr, Path, Token, parse_quote};

const THERE_ARE: &str = "there are `protocol = \"replicated\"`, `name = \"...\"`, `version = 1` and `crate = path`";

/// How long a type's name may be, in bytes.
const LONGEST_NAME: usize = 200;

/// What was asked for, with defaults for what was not.
pub(crate) struct Options {
    /// Where the crate `dsm` is.
    krate: Path,
    /// Whether that is where it usually is.
    is_default: bool,
    /// What the type is called in the layout, if not as in the program.
    pub(crate) name: Option<LitStr>,
    /// The version of the declaration; 0 if none is given.
    pub(crate) version: u32,
}

impl Options {
    /// The path of what the attribute's code calls: `dsm::__private`.
    pub(crate) fn private(&self) -> TokenStream {
        let krate = &self.krate;
        quote!(#krate::__private)
    }

    /// The same at `span`, so that the compiler shows nothing else when something is wrong with what is called there. A
    /// path that the user wrote stays where that is: if it leads nowhere, this is one error.
    pub(crate) fn private_at(&self, span: Span) -> TokenStream {
        let krate = &self.krate;
        if self.is_default { quote_spanned!(span=> ::dsm::__private) } else { quote_spanned!(span=> #krate::__private) }
    }
}

/// Reads the options. What is wrong with them goes to `errors`, and the defaults take its place.
pub(crate) fn parse(tokens: TokenStream, errors: &mut Vec<Error>) -> Options {
    let mut krate = None;
    let (mut protocol, mut called, mut version) = (None, None, None);
    each(tokens, errors, |key, input, errors| {
        match key.to_string().as_str() {
            "crate" => {
                equals(key, input, THERE_ARE)?;
                set(&mut krate, input.call(Path::parse_mod_style)?, key, errors);
            }
            "protocol" => {
                equals(key, input, THERE_ARE)?;
                let name: LitStr = input.parse()?;
                check_protocol(&name, errors);
                set(&mut protocol, name, key, errors);
            }
            "name" => {
                equals(key, input, THERE_ARE)?;
                let text: LitStr = input.parse()?;
                if text.value().is_empty() || text.value().len() > LONGEST_NAME {
                    let message = format!("a name has 1 to {LONGEST_NAME} bytes");
                    errors.push(Error::new(text.span(), message));
                }
                set(&mut called, text, key, errors);
            }
            "version" => {
                equals(key, input, THERE_ARE)?;
                let number: LitInt = input.parse()?;
                match number.base10_parse::<u32>() {
                    Ok(0) => errors.push(Error::new(number.span(), "the first version is 1")),
                    Ok(given) => set(&mut version, given, key, errors),
                    Err(error) => errors.push(error),
                }
            }
            other => return Err(Error::new(key.span(), format!("unknown option `{other}`: {THERE_ARE}"))),
        }
        Ok(())
    });
    let is_default = krate.is_none();
    let krate = krate.unwrap_or_else(|| parse_quote!(::dsm));
    Options { krate, is_default, name: called, version: version.unwrap_or_default() }
}

/// Reads options, `key` or `key = value`, one by one. One that is wrong is reported, and then the next is read.
pub(crate) fn each(
    tokens: TokenStream,
    errors: &mut Vec<Error>,
    read: impl FnMut(&Ident, ParseStream<'_>, &mut Vec<Error>) -> syn::Result<()>,
) {
    let parser = |input: ParseStream<'_>| {
        each_of(input, errors, read);
        Ok(())
    };
    if let Err(error) = parser.parse2(tokens) {
        errors.push(error);
    }
}

fn each_of(
    input: ParseStream<'_>,
    errors: &mut Vec<Error>,
    mut read: impl FnMut(&Ident, ParseStream<'_>, &mut Vec<Error>) -> syn::Result<()>,
) {
    while !input.is_empty() {
        let key = input.call(Ident::parse_any);
        let result = key.and_then(|key| read(&key, input, errors));
        let is_whole = || input.is_empty() || input.peek(Token![,]);
        if let Err(error) = result.and_then(|()| if is_whole() { Ok(()) } else { Err(input.error("expected `,`")) }) {
            errors.push(error);
            while !is_whole() {
                // A token tree can always be parsed where there is one.
                let _ = input.parse::<TokenTree>();
            }
        }
        let _ = input.parse::<Option<Token![,]>>();
    }
}

/// The sign between an option and its value.
pub(crate) fn equals(key: &Ident, input: ParseStream<'_>, there_are: &str) -> syn::Result<()> {
    if !input.peek(Token![=]) {
        return Err(Error::new(key.span(), format!("option `{key}` needs a value: {there_are}")));
    }
    input.parse::<Token![=]>().map(|_| ())
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
        let read = |input: ParseStream<'_>| {
            each_of(input, errors, |key, input, errors| options.read(key, input, errors));
            Ok(())
        };
        if is_ours && let Err(error) = attribute.parse_args_with(read) {
            errors.push(error);
        }
        !is_ours
    });
    options
}

impl FieldOptions {
    fn read(&mut self, key: &Ident, input: ParseStream<'_>, errors: &mut Vec<Error>) -> syn::Result<()> {
        match key.to_string().as_str() {
            "skip_accessors" => self.skips_accessors = true,
            "read_only" => self.is_read_only = true,
            "rename" => {
                equals(key, input, OF_A_FIELD)?;
                let text: LitStr = input.parse()?;
                match text.parse_with(Ident::parse_any) {
                    Ok(name) => set(&mut self.rename, name, key, errors),
                    Err(_) => errors.push(Error::new(text.span(), "this cannot be the name of a field")),
                }
            }
            "align" => {
                equals(key, input, OF_A_FIELD)?;
                let number: LitInt = input.parse()?;
                if number.base10_parse::<u64>().ok() != Some(64) {
                    let message = "a field can be on lines of its own, which are 64 bytes: `align = 64`";
                    return Err(Error::new(number.span(), message));
                }
                self.is_aligned = true;
            }
            other => return Err(Error::new(key.span(), format!("unknown option `{other}`: {OF_A_FIELD}"))),
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

#[cfg(test)]
mod tests {
    use super::*;
    use quote::ToTokens;

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

    #[test]
    fn what_follows_a_mistake_is_read_all_the_same() {
        let (krate, errors) = parsed(quote!(version = "2", name = "", 3, = 4, protocol = "paged" fast, crate = a));
        assert_eq!((krate.as_str(), errors.len()), ("a", 6), "{errors:?}");
        assert!(errors[0].contains("integer literal") && errors[1].contains("1 to 200 bytes"), "{errors:?}");
        assert!(errors[4].contains("unknown protocol") && errors[5].contains("expected `,`"), "{errors:?}");
    }
}

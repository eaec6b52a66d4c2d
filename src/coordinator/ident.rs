//! Names that a language keeps for itself, as identifiers of that language. For templates: `{{ name | ident("rust") }}`.

use minijinja::{Error, ErrorKind};

const RUST: &str = "abstract as async await become box break const continue do dyn else enum extern false final fn for gen \
    if impl in let loop macro match mod move mut override priv pub ref return static struct trait true try type typeof \
    unsafe unsized use virtual where while yield";

/// Not even `r#` makes an identifier of these.
const RUST_PATHS: &str = "self Self super crate _";

const PYTHON: &str = "False None True and as assert async await break class continue def del elif else except finally \
    for from global if import in is lambda nonlocal not or pass raise return try while with yield";

const GO: &str = "break case chan const continue default defer else fallthrough for func go goto if import interface \
    map package range return select struct switch type var";

const ELIXIR: &str = "after and catch do else end false fn in nil not or rescue true when";

const JAVASCRIPT: &str = "arguments await break case catch class const continue debugger default delete do else enum \
    eval export extends false finally for function if implements import in instanceof interface let new null package \
    private protected public return static super switch this throw true try typeof undefined var void while with yield";

/// The name itself where the language takes it, else its escape: `r#type` in Rust, a trailing `_` elsewhere. SQL is not
/// among the languages: there every name stands in quotes.
pub(super) fn ident(name: &str, language: &str) -> Result<String, Error> {
    let kept = match language {
        "rust" if has(RUST, name) => return Ok(format!("r#{name}")),
        "rust" => RUST_PATHS,
        "python" => PYTHON,
        "go" => GO,
        "elixir" => ELIXIR,
        "javascript" | "typescript" => JAVASCRIPT,
        _ => return Err(Error::new(ErrorKind::InvalidOperation, format!("no identifiers of {language:?} are known"))),
    };
    Ok(if has(kept, name) { format!("{name}_") } else { name.to_owned() })
}

fn has(words: &str, name: &str) -> bool {
    words.split(' ').any(|word| word == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_escaped_as_their_language_does() {
        let of = |name, language| ident(name, language).unwrap();
        assert_eq!((of("type", "rust").as_str(), of("self", "rust").as_str()), ("r#type", "self_"));
        assert_eq!((of("class", "python").as_str(), of("type", "python").as_str()), ("class_", "type"));
        assert_eq!((of("end", "elixir").as_str(), of("end", "go").as_str()), ("end_", "end"));
        assert_eq!((of("default", "typescript").as_str(), of("range", "go").as_str()), ("default_", "range_"));
        assert!(ident("a", "cobol").is_err());
    }
}

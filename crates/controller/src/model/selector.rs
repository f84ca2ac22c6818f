//! Label selectors, as `kubectl -l` takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// Which objects are meant, by their labels: all requirements must hold; none = every object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    text: String,
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    is: Is,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Is {
    There,
    NotThere,
    OneOf(BTreeSet<String>),
    /// Not there, or none of these.
    NoneOf(BTreeSet<String>),
}

/// Why a text is no label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no requirement on labels; write `key`, `!key`, `key=value`, `key!=value`, `key in (a,b)` or \
     `key notin (a,b)`, several with commas between them"
)]
pub struct SelectorError(String);

impl Selector {
    /// Whether an object with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|Requirement { key, is }| match (is, labels.get(key)) {
            (Is::There, value) => value.is_some(),
            (Is::NotThere, value) => value.is_none(),
            (Is::OneOf(values), value) => value.is_some_and(|value| values.contains(value)),
            (Is::NoneOf(values), value) => value.is_none_or(|value| !values.contains(value)),
        })
    }

    /// Whether every object is meant.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let pieces = outside_parentheses(text);
        let pieces = pieces.iter().map(|piece| piece.trim()).filter(|piece| !piece.is_empty());
        let requirements = pieces.map(requirement).collect::<Result<_, _>>()?;
        Ok(Self { text: text.trim().to_owned(), requirements })
    }
}

/// Splits at commas, but for those of a set of values.
fn outside_parentheses(text: &str) -> Vec<&str> {
    let (mut pieces, mut begin, mut inside) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match character {
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => {
                pieces.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[begin..]);
    pieces
}

fn requirement(piece: &str) -> Result<Requirement, SelectorError> {
    let error = || SelectorError(piece.to_owned());
    let one = |value: &str| BTreeSet::from([value.trim().to_owned()]);
    let (key, is) = if let Some((key, value)) = piece.split_once("!=") {
        (key, Is::NoneOf(one(value)))
    } else if let Some((key, value)) = piece.split_once("==").or_else(|| piece.split_once('=')) {
        (key, Is::OneOf(one(value)))
    } else if let Some((key, rest)) = piece.split_once(char::is_whitespace) {
        let rest = rest.trim();
        let (operator, values) = rest.split_once('(').ok_or_else(error)?;
        let values = values.strip_suffix(')').ok_or_else(error)?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        match operator.trim() {
            "in" => (key, Is::OneOf(values)),
            "notin" => (key, Is::NoneOf(values)),
            _ => return Err(error()),
        }
    } else if let Some(key) = piece.strip_prefix('!') {
        (key, Is::NotThere)
    } else {
        (piece, Is::There)
    };
    let (key, is) = (key.trim(), is);
    let values_are_fine = match &is {
        Is::There | Is::NotThere => true,
        Is::OneOf(values) | Is::NoneOf(values) => values.iter().all(|value| value.chars().all(is_of_a_name)),
    };
    if key.is_empty() || !key.chars().all(|c| is_of_a_name(c) || c == '/') || !values_are_fine {
        return Err(error());
    }
    Ok(Requirement { key: key.to_owned(), is })
}

fn is_of_a_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_means_what_kubectl_means() {
        let cases = [
            ("", true),
            ("zone", true),
            ("!zone", false),
            ("!rack", true),
            ("zone=a", true),
            ("zone == b", false),
            ("zone!=b", true),
            ("rack!=b", true),
            ("zone in (b, a)", true),
            ("zone notin (b,a)", false),
            ("rack notin (a)", true),
            ("zone in (a,b),guenon.dev/director=true", true),
            ("zone=a, guenon.dev/director=false", false),
        ];
        let labels = [("zone", "a"), ("guenon.dev/director", "true")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        for (text, matches) in cases {
            let selector: Selector = text.parse().expect("a selector");
            assert_eq!(selector.matches(&labels), matches, "{text}");
            assert_eq!(selector.to_string(), text);
        }
    }

    #[test]
    fn what_is_none_is_refused_with_what_to_write() {
        for text in ["zone in a", "zone near (a)", "=a", "a b", "zone=a b", "(a)"] {
            let error = text.parse::<Selector>().expect_err("no selector");
            assert!(error.to_string().contains("key in (a,b)"), "{error}");
        }
    }
}

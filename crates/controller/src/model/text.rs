/// At most so many characters of a text, dots where some are left out.
#[must_use]
pub fn cut(text: &str, most: usize) -> String {
    const DOTS: &str = "...";
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(DOTS.len())).chain(DOTS.chars()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_ends_in_dots() {
        assert_eq!((cut("abcdef", 6).as_str(), cut("abcdefg", 6).as_str()), ("abcdef", "abc..."));
        assert_eq!(cut("äöüäöü", 5), "äö...");
    }
}

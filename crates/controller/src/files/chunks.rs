//! A file cut into documents before it is parsed, so that one that is no YAML never hides the others, and only those
//! that changed are parsed again.

/// A document's text and where it starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    /// Number of lines before it.
    pub(super) offset: usize,
    pub(super) text: &'a str,
}

/// Cuts at every `---` at the start of a line: YAML allows it nowhere else but inside of nothing (YAML 1.2.2, 9.1.1:
/// it ends even block and quoted scalars). What comes before the first content stays with it.
pub(super) fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut has_content = false;
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let is_marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_marker && has_content {
            chunks.push(Chunk { offset: start_line, text: &text[start..at] });
            (start, start_line, has_content) = (at, number, false);
        }
        let content = if is_marker { &line[3..] } else { line }.trim();
        has_content |= !(content.is_empty() || content.starts_with('#') || line.starts_with('%'));
        at += line.len();
    }
    if has_content {
        chunks.push(Chunk { offset: start_line, text: &text[start..] });
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_cut_where_they_start() {
        let text = "%YAML 1.2\n# head\n---\na: 1\n--- # next\nb: |\n  x\n---x\n---\n---\n# nothing\n---\nc: 3";
        let chunks: Vec<_> = split(text).into_iter().map(|chunk| (chunk.offset, chunk.text)).collect();
        assert_eq!(
            chunks,
            [
                (0, "%YAML 1.2\n# head\n---\na: 1\n"),
                (4, "--- # next\nb: |\n  x\n---x\n"),
                (8, "---\n---\n# nothing\n---\nc: 3"),
            ]
        );
    }

    #[test]
    fn a_file_of_comments_has_no_document() {
        assert_eq!(split("# nothing\n---\n\n# at all\n"), []);
        assert_eq!(split(""), []);
    }
}

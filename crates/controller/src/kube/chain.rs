/// An error with its causes, in one line. What a server answers is told in its own words.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let (said, is_last) = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => (format!("{} ({})", status.message, status.code), true),
            Some(_) | None => (cause.to_string(), false),
        };
        // Some errors repeat their causes.
        if !text.contains(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        next = if is_last { None } else { cause.source() };
    }
    text
}

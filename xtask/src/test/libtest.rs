//! What the binaries of `cargo test` print.

use super::Count;

/// Adds up what all binaries said: which tests passed and failed, and why.
pub(super) fn results(said: &str) -> Count {
    let mut count = Count::default();
    // Tests of binaries that have ended: another binary may have tests of the same names.
    let mut ended = 0;
    // The failure that the lines belong to.
    let mut told: Option<usize> = None;
    // A backtrace is longer than what it is of.
    let mut in_backtrace = false;
    for line in said.lines() {
        in_backtrace = line == "stack backtrace:" || in_backtrace && line.starts_with(' ');
        if let Some(name) = block(line) {
            told = (ended..count.failed.len()).find(|&at| is_of(&count.failed[at].test, name));
        } else if line == "failures:" {
            told = None;
        } else if line.starts_with("test result: ") {
            (told, ended) = (None, count.failed.len());
        } else if let Some(at) = told.filter(|_| !in_backtrace) {
            let why = &mut count.failed[at].why;
            why.push_str(line);
            why.push('\n');
        } else if told.is_none() {
            count = count + result(line);
        }
    }
    for failure in &mut count.failed {
        failure.why = failure.why.trim().to_owned();
    }
    count
}

/// `---- model::ports stdout ----`
fn block(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// Whether a test is the one that a block names: `model::ports - should panic` is told in the block of `model::ports`.
fn is_of(test: &str, name: &str) -> bool {
    test.strip_prefix(name).is_some_and(|mode| mode.is_empty() || mode.starts_with(" - "))
}

/// `test model::ports ... FAILED`
fn result(line: &str) -> Count {
    match line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
        Some((_, "ok")) => Count::PASSED,
        Some((name, "FAILED")) => Count::failure(name, String::new()),
        _ => Count::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::steps::Failure;

    #[test]
    fn a_failure_is_told_with_what_it_printed() {
        let count = results(concat!(
            "running 3 tests\ntest a::x ... ok\ntest a::y ... FAILED\ntest a::z ... FAILED\n\nfailures:\n\n",
            "---- a::y stdout ----\n\nthread 'a::y' panicked at src/a.rs:1:2:\nleft: 1\ntest b ... FAILED\n\n",
            "---- a::z stdout ----\nnothing to do\n\n\nfailures:\n    a::y\n    a::z\n\n",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored\n\n",
            // Another binary has a test of the same name.
            "running 2 tests\ntest a::x - should panic ... ok\ntest a::y - should panic ... FAILED\n\nfailures:\n\n",
            "---- a::y stdout ----\nof another crate\nstack backtrace:\n   0: a\n      at b\nnote: it is short\n\nfailures:\n    a::y\n\ntest result: FAILED. 1 passed; 1 failed\n",
        ));
        let failure = |test: &str, why: &str| Failure { test: test.to_owned(), why: why.to_owned() };
        let failed = vec![
            failure("a::y", "thread 'a::y' panicked at src/a.rs:1:2:\nleft: 1\ntest b ... FAILED"),
            failure("a::z", "nothing to do"),
            failure("a::y - should panic", "of another crate\nnote: it is short"),
        ];
        assert_eq!(count, Count { passed: 2, failed });
    }

    #[test]
    fn other_lines_are_no_results() {
        assert_eq!(results("test result: ok. 5 passed; 0 failed\nrunning 0 tests\n"), Count::default());
    }
}

//! Which subjects a step may ask. What belongs to the server, to Tandem or to somebody's inbox is never among them.

/// The first tokens that Tandem serves or publishes under.
const OWN: [&str; 11] =
    ["tandem", "execution", "template", "cache", "llm", "workflow", "session", "task", "event", "_INBOX", "_R_"];

/// Whether a configuration may allow this.
pub(super) fn pattern(pattern: &str) -> Result<(), String> {
    let tokens: Vec<&str> = pattern.split('.').collect();
    let last = tokens.len() - 1;
    let sound = tokens.iter().enumerate().all(|(i, token)| match *token {
        "*" => i > 0,
        ">" => i > 0 && i == last,
        token => plain(token),
    });
    if !sound || pattern.len() > 200 {
        return Err(format!("{pattern:?} is no subject that begins with a word; `*` and a last `>` may follow"));
    }
    match reserved(tokens[0]) {
        true => Err(format!("{pattern:?} belongs to the server or to Tandem")),
        false => Ok(()),
    }
}

/// Whether a step may ask there. Says what to do where it may not.
pub fn allowed(subject: &str, patterns: &[String]) -> Result<(), String> {
    let tokens: Vec<&str> = subject.split('.').collect();
    if subject.len() > 200 || !tokens.iter().all(|token| plain(token)) {
        return Err("is no plain subject; write words with dots between them".to_owned());
    }
    if reserved(tokens[0]) {
        return Err("belongs to the server or to Tandem; ask a subject of your own".to_owned());
    }
    if patterns.iter().any(|pattern| fits(&tokens, pattern)) {
        return Ok(());
    }
    Err("is not allowed by the worker's configuration; its operator adds it to workflow.step_subjects".to_owned())
}

fn plain(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$'))
}

fn reserved(first: &str) -> bool {
    first.starts_with('$') || OWN.contains(&first)
}

fn fits(tokens: &[&str], pattern: &str) -> bool {
    let mut rest = tokens.iter();
    for part in pattern.split('.') {
        match (part, rest.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (word, Some(token)) if word == *token => {}
            _ => return false,
        }
    }
    rest.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_configured_may_be_asked_and_never_what_is_reserved() {
        let patterns = ["orders.*".to_owned(), "billing.>".to_owned(), "ship".to_owned()];
        for good in ["orders.reserve", "billing.a", "billing.a.b", "ship"] {
            assert_eq!(allowed(good, &patterns), Ok(()), "{good}");
        }
        for bad in
            ["orders", "orders.a.b", "billing", "ship.it", "other", "", "a..b", "orders.*", "orders.a b", "x\r\ny"]
        {
            assert!(allowed(bad, &patterns).is_err(), "{bad:?}");
        }
        // Not even where somebody configured it past the check.
        let all = [">".to_owned(), "$JS.>".to_owned(), "execution.>".to_owned()];
        for bad in ["$JS.API.STREAM.DELETE.X", "execution.request", "tandem.sync.hello", "_INBOX.a.b", "workflow.start"]
        {
            assert!(allowed(bad, &all).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn patterns_that_open_too_much_are_refused() {
        assert!(["orders.reserve", "orders.*", "orders.>", "a.*.c"].iter().all(|p| pattern(p).is_ok()));
        for bad in ["", ">", "*", "*.a", "$JS.>", "tandem.>", "workflow.start", "a.>.b", "a..b", "a b", "event.>"] {
            assert!(pattern(bad).is_err(), "{bad:?}");
        }
    }
}

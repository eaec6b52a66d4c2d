//! Server-sent events out of chunks that are split anywhere: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

/// No event of any provider comes near; what has no end must not fill the memory.
const MAX_EVENT: usize = 1 << 20;

/// Reads events out of what comes.
#[derive(Default)]
pub(super) struct Events {
    /// What came and was not read yet: at most one unfinished line and the chunk that came last.
    buffer: Vec<u8>,
    /// How much of it was read.
    read: usize,
    /// The event that is being read.
    data: Vec<u8>,
    has_data: bool,
    /// The last line ended with CR, so that an LF that follows belongs to it.
    after_cr: bool,
    began: bool,
}

/// One event: its `data`, the lines joined with LF. The name of it is in the data too, with every provider.
pub(super) type Event = Vec<u8>;

/// A line or an event is longer than any can be.
#[derive(Debug)]
pub(super) struct TooLong;

impl Events {
    /// Call [`Self::next`] until there is none, then push again.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(chunk);
    }

    /// `None`: more must come first.
    pub(super) fn next(&mut self) -> Result<Option<Event>, TooLong> {
        loop {
            let mut rest = &self.buffer[self.read..];
            if self.after_cr && !rest.is_empty() {
                self.after_cr = false;
                if rest[0] == b'\n' {
                    self.read += 1;
                    rest = &rest[1..];
                }
            }
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return if rest.len() > MAX_EVENT { Err(TooLong) } else { Ok(None) };
            };
            let line = self.read..self.read + end;
            self.after_cr = rest[end] == b'\r';
            self.read += end + 1;
            if let Some(event) = self.line(line)? {
                return Ok(Some(event));
            }
        }
    }

    fn line(&mut self, line: std::ops::Range<usize>) -> Result<Option<Event>, TooLong> {
        let mut line = &self.buffer[line];
        if !self.began {
            self.began = true;
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            let has_data = std::mem::take(&mut self.has_data);
            return Ok(has_data.then(|| std::mem::take(&mut self.data)));
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            // A comment: keeps the connection alive.
            Some(0) => return Ok(None),
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &b""[..]),
        };
        if field == b"data" {
            if self.data.len() + value.len() > MAX_EVENT {
                return Err(TooLong);
            }
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<String> {
        let (mut events, mut found) = (Events::default(), vec![]);
        for chunk in chunks {
            events.push(chunk.as_ref());
            while let Some(event) = events.next().unwrap() {
                found.push(String::from_utf8(event).unwrap());
            }
        }
        found
    }

    #[test]
    fn events_are_told_apart_however_their_lines_end() {
        for end in ["\n", "\r\n", "\r"] {
            let text = "\u{feff}: hello\n\nevent: a\ndata: one\nid: 7\n\ndata:two\ndata:  three\ndata\n\nretry: 5\n\ndata: cut";
            let text = text.replace('\n', end);
            assert_eq!(read([&text]), ["one", "two\n three\n"], "{end:?}");
            assert_eq!(read(text.as_bytes().iter().map(|byte| [*byte])), ["one", "two\n three\n"], "{end:?}");
        }
        assert_eq!(read(["data: a\r", "\n\r", "\ndata: b\n\n"]), ["a", "b"], "CR and LF in two chunks end one line");
    }

    proptest! {
        #[test]
        fn where_a_stream_is_split_changes_nothing(
            texts in proptest::collection::vec("[a-zäß☃\u{1f600}{}\": ]{0,20}", 0..12),
            splits in proptest::collection::vec(0_usize..600, 0..12),
            end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        ) {
            let whole: String = texts.iter().map(|text| format!("event: x{end}data: {text}{end}{end}:{end}")).collect();
            let bytes = whole.as_bytes();
            let mut at: Vec<usize> = splits.into_iter().map(|split| split.min(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            prop_assert_eq!(read(at.windows(2).map(|pair| &bytes[pair[0]..pair[1]])), texts);
        }
    }

    #[test]
    fn what_has_no_end_is_an_error_before_it_fills_the_memory() {
        for filling in [vec![b'x'; 1 << 16], [b"data: ".to_vec(), vec![b'x'; 1 << 16], b"\n".to_vec()].concat()] {
            let mut events = Events::default();
            let failed = (0..64).any(|_| {
                events.push(&filling);
                events.next().is_err()
            });
            assert!(failed && events.buffer.len() + events.data.len() < 3 << 20);
        }
    }
}

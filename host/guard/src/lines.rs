//! Lines for standard error, written by a thread of their own.
//!
//! Whoever reads standard error may be slow, or hang, and whoever logs must not wait for that:
//! lines that the thread cannot keep up with are dropped and counted, and the next one that gets
//! through says how many. (tracing-appender, which does the like, prints to standard output when
//! it ends with a full queue: where both streams are one blocked pipe it would never end.)

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the last lines may take to be written.
const FLUSH: Duration = Duration::from_millis(500);

/// How long to wait for room in a full queue before looking again.
const PAUSE: Duration = Duration::from_millis(5);

enum Message {
    Line(Vec<u8>),
    /// Everything before this is written: closes the channel.
    Flush(SyncSender<()>),
    /// Nothing follows.
    End,
}

/// Takes lines, and never waits. Clones write to the same place.
#[derive(Clone, Debug)]
pub struct Lines {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicUsize>,
}

/// Ends the writing when dropped, and waits a little for the last lines.
#[derive(Debug)]
pub struct LinesEnd {
    lines: Lines,
    /// Closes when everything is written.
    written: Receiver<()>,
}

impl Lines {
    /// Starts to write to standard error. At most `backlog` lines wait to be written.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn to_stderr(backlog: usize) -> io::Result<(Lines, LinesEnd)> {
        Lines::start(io::stderr(), backlog)
    }

    fn start(
        mut out: impl Write + Send + 'static,
        backlog: usize,
    ) -> io::Result<(Lines, LinesEnd)> {
        let (queue, received) = mpsc::sync_channel(backlog);
        let (done, written) = mpsc::sync_channel(0);
        thread::Builder::new().name("log".to_owned()).stack_size(64 * 1024).spawn(move || {
            let _done = done;
            loop {
                match received.recv() {
                    // Nobody is left to tell where standard error cannot be written to.
                    Ok(Message::Line(line)) => drop(out.write_all(&line)),
                    Ok(Message::Flush(flushed)) => drop(flushed),
                    Ok(Message::End) | Err(_) => return,
                }
            }
        })?;
        let lines = Lines { queue, dropped: Arc::default() };
        Ok((lines.clone(), LinesEnd { lines, written }))
    }

    /// Waits until all lines so far are written, though not for long.
    pub fn flush(&self) {
        let (done, flushed) = mpsc::sync_channel(0);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // It never sends: it closes.
            let _ = flushed.recv_timeout(FLUSH);
        }
    }

    /// Has a line written, its line break included, or drops and counts it.
    pub fn put(&self, line: Vec<u8>) {
        let missing = self.dropped.swap(0, Relaxed);
        let line = if missing > 0 { [self::missing(missing), line].concat() } else { line };
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(missing + 1, Relaxed);
        }
    }
}

/// For formatters that write each line at once.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn missing(lines: usize) -> Vec<u8> {
    format!("({lines} lines are missing here: they were not read in time)\n").into_bytes()
}

impl Drop for LinesEnd {
    fn drop(&mut self) {
        let end = Instant::now() + FLUSH;
        if self.lines.dropped.load(Relaxed) > 0 {
            self.lines.put(Vec::new());
        }
        while let Err(TrySendError::Full(_)) = self.lines.queue.try_send(Message::End) {
            if Instant::now() >= end {
                return;
            }
            thread::sleep(PAUSE);
        }
        let _ = self.written.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _};

    use super::*;

    /// Lines into a pipe that is full already.
    fn blocked(backlog: usize) -> (PipeReader, usize, Lines, LinesEnd) {
        let (reader, mut writer) = io::pipe().unwrap();
        let size = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
        writer.write_all(&vec![b'.'; size]).unwrap();
        let (lines, end) = Lines::start(writer, backlog).unwrap();
        (reader, size, lines, end)
    }

    #[test]
    fn the_last_lines_are_written() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (lines, end) = Lines::start(writer, 100).unwrap();
        for number in 0..100 {
            lines.put(format!("{number}\n").into_bytes());
        }
        drop(end);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().last(), Some("99"));
    }

    #[test]
    fn a_reader_that_hangs_is_not_waited_for_and_what_it_missed_is_counted() {
        let (mut reader, size, lines, end) = blocked(8);
        for number in 0..100 {
            lines.put(format!("{number}\n").into_bytes());
        }
        // The pipe is emptied: the thread goes on, and so does what is put from now on.
        reader.read_exact(&mut vec![0; size]).unwrap();
        let mut text = String::new();
        let mut byte = [0];
        while !text.contains("7\n") {
            reader.read_exact(&mut byte).unwrap();
            text.push(byte[0].into());
        }
        drop(end);
        reader.read_to_string(&mut text).unwrap();
        let told: Vec<&str> = text.lines().collect();
        let written = told.iter().filter(|line| line.parse::<u32>().is_ok()).count();
        assert!((8..=9).contains(&written), "the backlog, and one at which the thread was: {text}");
        // One that the thread had room for again tells of those before it.
        let note =
            |line: &&str| line.strip_prefix('(')?.split_once(" lines are missing")?.0.parse().ok();
        let missing: Vec<usize> = told.iter().filter_map(note).collect();
        assert_eq!(missing.iter().sum::<usize>(), 100 - written, "{text}");
        assert!(told.last().is_some_and(|last| last.starts_with('(')), "{text}");
    }

    #[test]
    fn a_reader_that_never_comes_back_holds_up_no_end() {
        let (_reader, _, lines, end) = blocked(2);
        for _ in 0..10 {
            lines.put(b"x\n".to_vec());
        }
        drop(end);
    }
}

//! `conclave watch` on a terminal: a table of the elections, kept up to date, and under it what changed last.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use conclave_core::{ElectionName, Key};
use rustix::termios::tcgetwinsize;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, interval};

use super::span;
use crate::cli::exit;
use crate::commands::cluster::{Cluster, Reading};
use crate::reading::news::{News, State, learn};
use crate::reading::now_unix_ms;
use crate::reading::report::MarkReport;
use crate::terminal::{columns, plain, takes_colours};

/// How often ages move on.
const TICK: Duration = Duration::from_secs(1);

/// Events that are remembered; more than a screen has lines.
const REMEMBERED: usize = 200;

/// Shows a table of its own screen, which is gone afterwards.
const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";

/// Whether standard output is something to draw on.
pub(super) fn can_draw() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && !dumb
}

/// The terminal as it was, once this is dropped.
struct Screen;

impl Screen {
    fn open() -> io::Result<Self> {
        write(OPEN)?;
        Ok(Screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs no tidying.
        let _ = write(CLOSE);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// What is drawn.
struct Scene<'a> {
    cluster: &'a str,
    only: Option<&'a ElectionName>,
    reading: Reading,
    /// When it was read, while the store does not answer.
    silent_since: Option<Instant>,
    events: VecDeque<String>,
}

/// Draws until the terminal is gone.
pub(super) async fn watch(
    cluster: &Cluster,
    reading: Reading,
    only: Option<&ElectionName>,
) -> Result<u8> {
    let (told, mut changes) = unbounded_channel();
    let mut state = State::new();
    learn(&mut state, reading.entries.clone());
    let after = reading.at;
    let name = cluster.name.clone();
    let mut scene =
        Scene { cluster: &name, only, reading, silent_since: None, events: VecDeque::new() };
    let follow = cluster.follow(after, &mut state, |news| told.send(news).is_ok());
    let draw = async {
        let _screen = Screen::open()?;
        let mut ticks = interval(TICK);
        loop {
            // A terminal that nobody gave a size says that it has none.
            let size = tcgetwinsize(io::stdout()).ok().filter(|it| it.ws_col > 0 && it.ws_row > 0);
            let (width, height) = size.map_or((80, 24), |it| (it.ws_col.into(), it.ws_row.into()));
            write(&frame(&scene.lines(), width, height))?;
            tokio::select! {
                _ = ticks.tick() => continue,
                Some(news) = changes.recv() => scene.hear(news),
            }
            // What else came with it is drawn together.
            while let Ok(news) = changes.try_recv() {
                scene.hear(news);
            }
            match cluster.read().await {
                Ok(reading) => (scene.reading, scene.silent_since) = (reading, None),
                Err(_) => scene.silent_since = scene.silent_since.or(Some(Instant::now())),
            }
        }
    };
    tokio::select! {
        () = follow => Ok(exit::SUCCESS),
        drawn = draw => drawn,
    }
}

impl Scene<'_> {
    fn hear<E: std::fmt::Display>(&mut self, news: Result<Vec<News>, E>) {
        let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let words: Vec<String> = match news {
            Ok(news) => {
                let of_it = |news: &News| {
                    self.only.is_none_or(|only| news.election.as_ref().is_none_or(|it| it == only))
                };
                news.into_iter().filter(of_it).map(|news| news.words).collect()
            }
            Err(error) => vec![format!("the store does not answer: {error}")],
        };
        for words in words {
            self.events.push_front(plain(&format!("{at}  {words}")));
            self.events.truncate(REMEMBERED);
        }
    }

    /// The screen's lines; those that somebody should look at are marked.
    fn lines(&self) -> Vec<(String, bool)> {
        let mut head = format!("cluster {}  revision {}", self.cluster, self.reading.at);
        if let Some(since) = self.silent_since {
            head.push_str(&format!("  THE STORE HAS NOT ANSWERED FOR {}", span(since.elapsed())));
        }
        let mut lines = vec![(plain(&head), self.silent_since.is_some()), (String::new(), false)];
        let (rows, marked): (Vec<_>, Vec<_>) = self.rows().into_iter().unzip();
        let table = columns(&rows);
        lines.extend(table.lines().map(str::to_owned).zip(marked));
        lines.push((String::new(), false));
        lines.extend(self.events.iter().map(|event| (event.clone(), false)));
        lines
    }

    fn rows(&self) -> Vec<([String; 6], bool)> {
        let head = ["ELECTION", "HOLDER IN STORE", "TOKEN", "FOR", "FIT", "STATE"];
        let mut rows = vec![(head.map(str::to_owned), false)];
        let listing = &self.reading.listing;
        let shown = |name: &&ElectionName| self.only.is_none_or(|only| only == *name);
        for election in listing.elections().filter(shown) {
            let holder = listing.holder(election);
            let view = listing.view(election, &"watch".into(), 0);
            let fit = view.candidates.iter().filter(|it| it.fitness.fit && !it.cordoned).count();
            let pause = self.reading.mark(&Key::Pause(election.clone())).map(MarkReport::from);
            let mut state = Vec::new();
            if holder.is_none() {
                state.push("NOBODY HOLDS IT".to_owned());
            } else if holder.as_ref().is_some_and(|holder| !holder.session_stands) {
                state.push("ITS SESSION HAS ENDED".to_owned());
            }
            let cordoned: Vec<&str> = view
                .candidates
                .iter()
                .filter(|it| it.cordoned)
                .map(|it| it.name.as_str())
                .collect();
            if !cordoned.is_empty() {
                state.push(format!("CORDONED {}", cordoned.join(", ")));
            }
            // Last, for its note may be longer than the screen is wide.
            state.extend(pause.map(|pause| format!("PAUSED{}", pause.words())));
            let term = holder.as_ref().and_then(|holder| holder.term.as_ref());
            let node = match (&holder, term) {
                (None, _) => "-".to_owned(),
                (Some(_), Some(term)) => term.holder.to_string(),
                (Some(holder), None) => format!("a foreign key {}", holder.suffix),
            };
            let age = term.map(|term| now_unix_ms().saturating_sub(term.since_unix_ms));
            let row = [
                election.to_string(),
                node,
                holder.as_ref().map_or("-".to_owned(), |holder| holder.token.to_string()),
                age.map_or("-".to_owned(), |ms| span(Duration::from_millis(ms))),
                format!("{fit} of {}", view.candidates.len()),
                state.join("; "),
            ];
            rows.push((row, !state.is_empty()));
        }
        rows
    }
}

/// The lines as they are drawn over what was there: none longer than the terminal is wide, and no more than
/// it is high.
fn frame(lines: &[(String, bool)], width: usize, height: usize) -> String {
    let colours = takes_colours(&io::stdout());
    let mut frame = String::from("\x1b[H");
    for (index, (line, marked)) in lines.iter().take(height).enumerate() {
        if index > 0 {
            frame.push_str("\r\n");
        }
        let line: String = line.chars().take(width).collect();
        match (colours && *marked, colours && index == 2) {
            (true, _) => frame.push_str(&format!("\x1b[1;31m{line}\x1b[0m")),
            (_, true) => frame.push_str(&format!("\x1b[1m{line}\x1b[0m")),
            _ => frame.push_str(&line),
        }
        frame.push_str("\x1b[K");
    }
    frame + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_terminal() {
        let lines: Vec<(String, bool)> =
            (0..5).map(|number| (format!("line {number}"), false)).collect();
        let shown = frame(&lines, 4, 2);
        assert_eq!(shown, "\x1b[Hline\x1b[K\r\nline\x1b[K\x1b[J");
    }
}

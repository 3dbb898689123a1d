//! What is seen: the story's lines, and under them, on a terminal with room for it, a table that is
//! kept up to date. Elsewhere the table's changes are plain lines.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::Instant;

use rustix::termios::tcgetwinsize;

use crate::terminal::takes_colours;

/// The story's lines are no longer than this.
const WIDTH: usize = 79;

/// Nor are they broken into shorter pieces than this, however narrow the terminal is.
const NARROWEST: usize = 30;

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) node: &'static str,
    /// The state of its `conclave run`.
    pub(super) conclave: String,
    pub(super) role: String,
    /// For each pod whether it runs here.
    pub(super) pods: Vec<bool>,
}

/// The table.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Table {
    pub(super) pods: Vec<&'static str>,
    pub(super) rows: Vec<Row>,
    /// For each pod how many run now, and how many ran at once at most.
    pub(super) counts: Vec<(usize, usize)>,
}

/// A terminal's columns and rows.
type Size = (usize, usize);

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    began: Instant,
    /// Whether lines can be drawn over.
    terminal: bool,
    colour: bool,
    shown: Table,
    /// How many lines of the table are on the screen.
    lines: usize,
    /// How large the terminal was when they were drawn.
    size: Option<Size>,
}

impl Screen {
    /// What standard output and the environment are like.
    pub(super) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        let terminal = io::stdout().is_terminal() && !dumb;
        Screen {
            began: Instant::now(),
            terminal,
            colour: terminal && takes_colours(&io::stdout()),
            shown: Table::default(),
            lines: 0,
            size: None,
        }
    }

    /// Tells the next piece of the story.
    pub(super) fn say(&mut self, text: &str) {
        let draws = self.draws(&self.shown.clone());
        let line = self.story(text);
        if draws {
            let table = render(&self.shown, self.colour);
            let out = format!("{}{line}{table}", erase(self.lines));
            self.lines = table.lines().count();
            put(&out);
        } else {
            put(&line);
        }
    }

    /// Tells the end of the story, below the table as it last was.
    pub(super) fn conclude(&mut self, text: &str) {
        let gap = if self.lines > 0 { "\n" } else { "" };
        let line = self.story(text);
        put(&format!("{gap}{line}"));
    }

    /// Shows the table as it is now, where it has changed.
    pub(super) fn show(&mut self, table: Table) {
        if table == self.shown {
            return;
        }
        if self.draws(&table) {
            let text = render(&table, self.colour);
            put(&format!("{}{text}", erase(self.lines)));
            self.lines = text.lines().count();
        } else {
            let at = self.began.elapsed().as_secs_f64();
            let news: String = changes(&self.shown, &table)
                .iter()
                .map(|news| format!("{at:6.2} s    {news}\n"))
                .collect();
            put(&news);
        }
        self.shown = table;
    }

    /// A piece of the story as it is put.
    fn story(&self, text: &str) -> String {
        let width = self.size.map_or(WIDTH, |(columns, _)| columns.clamp(NARROWEST, WIDTH));
        let line = wrapped(self.began.elapsed().as_secs_f64(), text, width);
        if self.colour { format!("\x1b[1m{line}\x1b[0m") } else { line }
    }

    /// Whether a table can be drawn now, over the one before.
    fn draws(&mut self, table: &Table) -> bool {
        if !self.terminal {
            return false;
        }
        let size = terminal_size();
        if size != self.size {
            // The terminal has broken the old table's lines anew, or cut them: it stays.
            self.lines = 0;
            self.size = size;
        }
        let fits = has_room(table, size);
        if !fits {
            self.lines = 0;
        }
        fits
    }
}

/// The size of the terminal that standard output is; `None` where it does not know.
fn terminal_size() -> Option<Size> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    let size = (usize::from(size.ws_col), usize::from(size.ws_row));
    (size.0 > 0 && size.1 > 0).then_some(size)
}

/// Whether a table's lines can all be seen unbroken, with the cursor below them.
fn has_room(table: &Table, size: Option<Size>) -> bool {
    let Some((columns, rows)) = size else { return true };
    let text = render(table, false);
    text.lines().all(|line| line.len() <= columns) && text.lines().count() < rows
}

/// The demo must end well even if nobody is left to read it.
fn put(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A piece of the story behind its time, in lines of at most this width.
fn wrapped(at: f64, text: &str, width: usize) -> String {
    let mut line = format!("{at:6.2} s ");
    let margin = line.len();
    let mut out = String::new();
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > width {
            out.push_str(&line);
            out.push('\n');
            line = " ".repeat(margin);
        }
        line.push(' ');
        line.push_str(word);
    }
    out + &line + "\n"
}

/// Moves up over the table and clears it.
fn erase(lines: usize) -> String {
    match lines {
        0 => String::new(),
        lines => format!("\x1b[{lines}A\x1b[J"),
    }
}

fn render(table: &Table, colour: bool) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let paint =
        |text: String, code: &str| if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text };
    let width = |pod: &str| pod.len().max(7);
    let mut out = String::from("\n");
    let mut head = format!("  {:<6}{:<12}{:<22}", "node", "conclave", "role");
    for pod in &table.pods {
        let _ = write!(head, "  {pod:<width$}", width = width(pod));
    }
    let _ = writeln!(out, "{}", paint(head, "2"));
    for row in &table.rows {
        let leads = row.role.starts_with("leader");
        let role = format!("{:<22}", row.role);
        let _ = write!(out, "  {:<6}{:<12}", row.node, row.conclave);
        out.push_str(&if leads { paint(role, "32") } else { role });
        for (pod, runs) in table.pods.iter().zip(&row.pods) {
            let cell =
                format!("{:<width$}", if *runs { "running" } else { "-" }, width = width(pod));
            let _ = write!(out, "  {}", if *runs { paint(cell, "32") } else { cell });
        }
        out.push('\n');
    }
    for (label, pick) in [("pods now", 0), ("most at once", 1)] {
        let _ = write!(out, "  {label:<40}");
        for (pod, count) in table.pods.iter().zip(&table.counts) {
            let number = if pick == 0 { count.0 } else { count.1 };
            let cell = format!("{number:<width$}", width = width(pod));
            let _ = write!(out, "  {}", if number > 1 { paint(cell, "1;31") } else { cell });
        }
        out.push('\n');
    }
    out
}

/// What is different, as plain lines: what went before what came, as it does on the nodes.
fn changes(old: &Table, new: &Table) -> Vec<String> {
    let (mut news, mut came) = (Vec::new(), Vec::new());
    for row in &new.rows {
        let before = old.rows.iter().find(|before| before.node == row.node);
        if before.is_none_or(|before| before.conclave != row.conclave) {
            news.push(format!("node {}: conclave {}", row.node, row.conclave));
        }
        if row.role != "-" && before.is_none_or(|before| before.role != row.role) {
            news.push(format!("node {}: {}", row.node, row.role));
        }
        for (at, (pod, runs)) in new.pods.iter().zip(&row.pods).enumerate() {
            let ran = before.and_then(|before| before.pods.get(at)).copied().unwrap_or(false);
            if ran != *runs {
                let (list, what) =
                    if *runs { (&mut came, "runs") } else { (&mut news, "has ended") };
                list.push(format!("node {}: {pod} {what}", row.node));
            }
        }
    }
    news.append(&mut came);
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(role: &str, runs: bool) -> Table {
        let row = |node, role: &str, runs: bool| Row {
            node,
            conclave: "up".to_owned(),
            role: role.to_owned(),
            pods: vec![runs, runs],
        };
        Table {
            pods: vec!["scheduler", "controller-manager"],
            rows: vec![row("a", role, runs), row("b", "standby", false)],
            counts: vec![(usize::from(runs), 1); 2],
        }
    }

    #[test]
    fn the_table_is_readable_without_colours() {
        assert_eq!(
            render(&table("leader, token 7", true), false),
            "
  node  conclave    role                    scheduler  controller-manager
  a     up          leader, token 7         running    running           
  b     up          standby                 -          -                 
  pods now                                  1          1                 
  most at once                              1          1                 
"
        );
    }

    #[test]
    fn the_story_is_wrapped_under_its_time() {
        let text = "word ".repeat(20);
        let line = ["word"; 14].join(" ");
        assert_eq!(
            wrapped(1.5, text.trim(), WIDTH),
            format!("  1.50 s  {line}\n          {}\n", ["word"; 6].join(" "))
        );
    }

    #[test]
    fn a_table_is_drawn_only_where_all_of_it_can_be_seen() {
        let table = table("leader, token 7", true);
        let text = render(&table, false);
        let columns = text.lines().map(str::len).max().unwrap();
        let rows = text.lines().count() + 1;
        for (size, expected) in [
            (None, true),
            (Some((80, 24)), true),
            (Some((columns, rows)), true),
            (Some((columns - 1, 24)), false),
            (Some((80, rows - 1)), false),
        ] {
            assert_eq!(has_room(&table, size), expected, "{size:?}");
        }
    }

    #[test]
    fn plain_lines_say_only_what_changed() {
        let (old, new) = (table("standby", false), table("leader, token 7", true));
        assert_eq!(
            changes(&old, &new),
            [
                "node a: leader, token 7",
                "node a: scheduler runs",
                "node a: controller-manager runs"
            ]
        );
        assert_eq!(changes(&new, &new), [""; 0]);
        assert_eq!(
            changes(&new, &old),
            [
                "node a: standby",
                "node a: scheduler has ended",
                "node a: controller-manager has ended"
            ]
        );
    }

    #[test]
    fn plain_lines_say_what_ended_before_what_came_elsewhere() {
        let (mut old, mut new) = (table("standby", false), table("leader, token 9", true));
        old.rows[1].pods = vec![true, true];
        new.rows[1].pods = vec![false, true];
        assert_eq!(
            changes(&old, &new),
            [
                "node a: leader, token 9",
                "node b: scheduler has ended",
                "node a: scheduler runs",
                "node a: controller-manager runs"
            ]
        );
    }
}

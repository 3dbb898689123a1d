//! What is seen: the story's lines, and under them, on a terminal, a table that is kept up to date.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::Instant;

/// The story's lines are no longer than this.
const WIDTH: usize = 79;

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

/// Standard output.
#[derive(Debug)]
pub(super) struct Screen {
    began: Instant,
    terminal: bool,
    shown: Table,
    /// How many lines of the table are on the screen.
    lines: usize,
}

impl Screen {
    /// On a terminal the table is drawn over itself; elsewhere its changes are plain lines.
    pub(super) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Screen {
            began: Instant::now(),
            terminal: io::stdout().is_terminal() && !dumb,
            shown: Table::default(),
            lines: 0,
        }
    }

    /// Tells the next piece of the story.
    pub(super) fn say(&mut self, text: &str) {
        let line = wrapped(self.began.elapsed().as_secs_f64(), text);
        if self.terminal {
            let table = render(&self.shown, true);
            let out = format!("{}\x1b[1m{}\x1b[0m{table}", erase(self.lines), line);
            self.lines = table.lines().count();
            put(&out);
        } else {
            put(&line);
        }
    }

    /// Tells the end of the story, below the table as it last was.
    pub(super) fn conclude(&mut self, text: &str) {
        let line = wrapped(self.began.elapsed().as_secs_f64(), text);
        put(&if self.terminal { format!("\n\x1b[1m{line}\x1b[0m") } else { line });
    }

    /// Shows the table as it is now, where it has changed.
    pub(super) fn show(&mut self, table: Table) {
        if table == self.shown {
            return;
        }
        if self.terminal {
            let text = render(&table, true);
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
}

/// The demo must end well even if nobody is left to read it.
fn put(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A piece of the story behind its time, in lines that any terminal has room for.
fn wrapped(at: f64, text: &str) -> String {
    let mut line = format!("{at:6.2} s ");
    let margin = line.len();
    let mut out = String::new();
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
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

/// What is different, as plain lines.
fn changes(old: &Table, new: &Table) -> Vec<String> {
    let mut news = Vec::new();
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
                let what = if *runs { "runs" } else { "has ended" };
                news.push(format!("node {}: {pod} {what}", row.node));
            }
        }
    }
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
            wrapped(1.5, text.trim()),
            format!("  1.50 s  {line}\n          {}\n", ["word"; 6].join(" "))
        );
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
}

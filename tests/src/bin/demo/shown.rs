//! The table of what was shown.

use harness::kubelet::Outcome;

/// What was shown so far, printed as it comes.
#[derive(Debug, Default)]
pub struct Shown {
    wrong: usize,
}

impl Shown {
    /// A heading.
    #[expect(clippy::unused_self, reason = "printed to the same table")]
    pub fn title(&mut self, text: &str) {
        println!("\n{text}");
    }

    /// Lines as they are.
    #[expect(clippy::unused_self, reason = "printed to the same table")]
    pub fn text(&mut self, lines: &str) {
        for line in lines.lines() {
            println!("    {line}");
        }
    }

    /// A long message, on lines of its own.
    fn message(&mut self, text: &str) {
        let mut line = String::new();
        for word in text.split(' ') {
            if !line.is_empty() && line.chars().count() + word.chars().count() > 100 {
                self.text(&line);
                line.clear();
            }
            line = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        }
        self.text(&line);
    }

    /// What was done, what came of it, and whether that is as it should be.
    pub fn row(&mut self, what: &str, seen: &str, right: bool) {
        self.wrong += usize::from(!right);
        let verdict = if right { "ok" } else { "NOT AS IT SHOULD BE" };
        println!("  {what:<44} {seen:<34} {verdict}");
    }

    /// A row whose second column has to be these words.
    pub fn same(&mut self, what: &str, seen: &str, expect: &str) {
        self.row(what, seen.trim(), seen.trim() == expect);
    }

    /// How the kubelet's operation ended. A refusal's words stand on lines of their own.
    pub fn outcome(&mut self, what: &str, seen: &Outcome, expect: &Outcome) {
        let word = match seen {
            Outcome::Mounted => "mounted",
            Outcome::AlreadyMounted => "mounted already",
            Outcome::Unmounted => "unmounted",
            Outcome::NotThere => "not there",
            Outcome::Expanded => "grown",
            Outcome::Refused(_) => "refused",
            Outcome::Crashed(_) => "the kubelet crashed",
        };
        let right = std::mem::discriminant(seen) == std::mem::discriminant(expect);
        self.row(what, word, right);
        if let Outcome::Refused(why) | Outcome::Crashed(why) = seen {
            self.message(why);
        }
    }

    /// How many are left, where none should be.
    pub fn none(&mut self, what: &str, count: usize) {
        self.row(what, &format!("{count} left"), count == 0);
    }

    /// Whether every row was right.
    pub fn all_well(&self) -> bool {
        self.wrong == 0
    }
}

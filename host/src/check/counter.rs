//! When looks that change their mind are believed.

/// Turns single looks into a steady judgement. The first look decides at once; after that it
/// takes several in a row to turn the judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    rise: u32,
    fall: u32,
    passing: Option<bool>,
    /// How many looks in a row have contradicted the judgement.
    against: u32,
}

impl Counter {
    /// A counter that wants `rise` good looks in a row to pass again and `fall` bad ones to
    /// fail; zero counts as one.
    pub fn new(rise: u32, fall: u32) -> Self {
        Counter { rise: rise.max(1), fall: fall.max(1), passing: None, against: 0 }
    }

    /// Takes a look's result; returns the judgement when it has just changed.
    pub fn observe(&mut self, good: bool) -> Option<bool> {
        let needed = match self.passing {
            None => 1,
            Some(passing) if passing == good => {
                self.against = 0;
                return None;
            }
            Some(true) => self.fall,
            Some(false) => self.rise,
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.passing = Some(good);
        self.passing
    }
}

#[cfg(test)]
mod tests {
    use super::Counter;

    /// `+` is a good look, `-` a bad one; the answer has `P` and `F` where the judgement
    /// changed and `.` where it did not.
    fn judged(rise: u32, fall: u32, looks: &str) -> String {
        let mut counter = Counter::new(rise, fall);
        let judge = |look| match counter.observe(look == '+') {
            Some(true) => 'P',
            Some(false) => 'F',
            None => '.',
        };
        looks.chars().map(judge).collect()
    }

    #[test]
    fn judgements() {
        let table = [
            (2, 3, "+", "P", "the first look decides"),
            (2, 3, "-", "F", "also when it is bad"),
            (2, 3, "+--+--+", "P......", "two bad looks of three are forgotten"),
            (2, 3, "+---", "P..F", "three in a row are believed"),
            (2, 3, "+----", "P..F.", "and said once"),
            (2, 3, "-+-+-++", "F.....P", "it passes again after two in a row"),
            (1, 1, "+-+-", "PFPF", "one look each"),
            (0, 0, "+-+-", "PFPF", "zero counts as one"),
            (3, 1, "-++-+++", "F.....P", "a bad look starts the rise again"),
        ];
        for (rise, fall, looks, expected, why) in table {
            assert_eq!(judged(rise, fall, looks), expected, "{why}");
        }
    }
}

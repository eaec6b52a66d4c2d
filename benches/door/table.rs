//! Figures of all rounds, their medians, and whether they reach their goals.

#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    None,
}

/// Rows in the order in which they were first added, each with the figure of every round.
#[derive(Default)]
pub struct Table(Vec<(&'static str, Goal, Vec<f64>, &'static str)>);

impl Table {
    pub fn add(&mut self, name: &'static str, goal: Goal, figure: f64, unit: &'static str) {
        match self.0.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.2.push(figure),
            None => self.0.push((name, goal, vec![figure], unit)),
        }
    }

    pub fn print(&mut self) {
        println!("{:<56} {:>10} {:>22} {:>10}", "", "median", "least … most", "goal");
        for (name, goal, figures, unit) in &mut self.0 {
            figures.sort_by(f64::total_cmp);
            let (least, median, most) = (figures[0], figures[figures.len() / 2], figures[figures.len() - 1]);
            let (wanted, reached) = match *goal {
                Goal::AtLeast(x) => (format!("≥ {x}"), if median >= x { "reached" } else { "MISSED" }),
                Goal::AtMost(x) => (format!("≤ {x}"), if median <= x { "reached" } else { "MISSED" }),
                Goal::None => (String::new(), ""),
            };
            println!(
                "{name:<56} {median:>7.2} {unit:<3} {:>21} {wanted:>10} {reached}",
                format!("{least:.2} … {most:.2}")
            );
        }
    }
}

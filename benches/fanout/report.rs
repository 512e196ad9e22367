//! Medians, as a table or as JSON.

use crate::cpu::Cost;

pub(crate) struct Row {
    name: String,
    /// Nanoseconds of CPU per packet, one of each round.
    nanos: Vec<f64>,
}

impl Row {
    pub(crate) fn new(name: String) -> Self {
        Self { name, nanos: Vec::new() }
    }

    pub(crate) fn add(&mut self, cost: &Cost) {
        self.nanos.push(cost.per_packet());
        self.nanos.sort_by(f64::total_cmp);
    }

    fn median(&self) -> f64 {
        self.nanos.get(self.nanos.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn range(&self) -> (f64, f64) {
        let at = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        (at(self.nanos.first()), at(self.nanos.last()))
    }
}

/// Prints the rows, each with its ratio to the first, which is the limit.
#[allow(clippy::print_stdout, reason = "the report of a command-line tool")]
pub(crate) fn print(device: &str, rows: &[Row], two_workers: f64, json: bool) {
    let limit = rows.first().map_or(f64::NAN, Row::median);
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                serde_json::json!({
                    "case": row.name,
                    "nanosPerPacket": row.median(),
                    "least": row.range().0,
                    "most": row.range().1,
                    "toLimit": row.median() / limit,
                    "rounds": row.nanos,
                })
            })
            .collect();
        let report =
            serde_json::json!({ "device": device, "twoWorkers": two_workers, "rows": rows });
        return println!("{report}");
    }
    println!("device: {device}; median of {} rounds\n", rows.first().map_or(0, |r| r.nanos.len()));
    println!("{:<28} {:>10} {:>18} {:>10}", "case", "ns/packet", "least to most", "to limit");
    for row in rows {
        let (least, most) = row.range();
        let range = format!("{least:.0} to {most:.0}");
        let (name, median) = (&row.name, row.median());
        println!("{name:<28} {median:>10.0} {range:>18} {:>10.2}", median / limit);
    }
    println!("\ntwo workers send {two_workers:.2} times as many packets a second as one");
}

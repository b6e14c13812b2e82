//! Samples, medians and tables.

use rustix::time::{ClockId, clock_gettime};
use std::{fmt, time::Instant};

/// One run of one variant.
pub struct Sample {
    name: &'static str,
    threads: usize,
    wall_ms: f64,
    cpu_ms: f64,
}

impl Sample {
    /// Measures `run`. Dropping what it returns is not measured.
    pub fn take<T>(
        samples: &mut Vec<Self>,
        name: &'static str,
        threads: usize,
        run: impl FnOnce() -> crate::Result<T>,
    ) -> crate::Result<T> {
        let (wall, cpu) = (Instant::now(), cpu_ms());
        let result = run();
        let (wall_ms, cpu_ms) = (wall.elapsed().as_secs_f64() * 1e3, cpu_ms() - cpu);
        samples.push(Self { name, threads, wall_ms, cpu_ms });
        result
    }
}

fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// A variant, round by round.
pub struct Row {
    name: &'static str,
    threads: usize,
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
}

/// All variants of one block.
pub struct Table {
    pub load: &'static str,
    pub transactions: usize,
    /// Candidates that did not fit a payload.
    pub left_out: usize,
    pub lanes: usize,
    pub segments: usize,
    pub payload_bytes: usize,
    pub access_bytes: usize,
    pub rows: Vec<Row>,
}

/// Order in the table.
const ORDER: [&str; 8] =
    ["plain revm", "with outcome", "build", "decode", "replay", "assemble", "hashes", "commit"];

impl Table {
    /// Takes over a round's samples.
    pub fn add_round(&mut self, samples: Vec<Sample>) {
        for sample in samples {
            let place = |row: &Row| (row.name, row.threads) == (sample.name, sample.threads);
            let at = self.rows.iter().position(place).unwrap_or_else(|| {
                let (name, threads) = (sample.name, sample.threads);
                self.rows.push(Row { name, threads, wall_ms: Vec::new(), cpu_ms: Vec::new() });
                self.rows.len() - 1
            });
            self.rows[at].wall_ms.push(sample.wall_ms);
            self.rows[at].cpu_ms.push(sample.cpu_ms);
        }
        let order = |row: &Row| ORDER.iter().position(|name| *name == row.name);
        self.rows.sort_by_key(|row| (order(row), row.threads));
    }

    fn row(&self, name: &str, threads: usize) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name && row.threads == threads)
    }

    /// How many times as fast as another row, at the median of the rounds.
    fn ratio(&self, row: &Row, to: Option<&Row>) -> Option<f64> {
        let to = to?;
        let ratios = to.wall_ms.iter().zip(&row.wall_ms).map(|(other, own)| other / own);
        Some(median(&ratios.collect::<Vec<_>>()))
    }

    /// How many times as fast as plain revm: by time, and by CPU time, which hardly depends on what else runs. Replay is
    /// compared with execution alone, replay and assembling together with execution and its outcome.
    fn against_plain(&self, row: &Row) -> [Option<f64>; 2] {
        let replay = self.row("replay", row.threads);
        let (baseline, before) = match row.name {
            "replay" | "build" => ("plain revm", None),
            "assemble" => ("with outcome", replay),
            _ => return [None; 2],
        };
        let Some(baseline) = self.row(baseline, 1) else { return [None; 2] };
        let sum = |own: &[f64], before: Option<&[f64]>| -> Vec<f64> {
            own.iter()
                .enumerate()
                .map(|(n, own)| own + before.and_then(|b| b.get(n)).unwrap_or(&0.0))
                .collect()
        };
        let wall = sum(&row.wall_ms, before.map(|row| &row.wall_ms[..]));
        let cpu = sum(&row.cpu_ms, before.map(|row| &row.cpu_ms[..]));
        let ratios: Vec<f64> = baseline.wall_ms.iter().zip(wall).map(|(plain, own)| plain / own).collect();
        [Some(median(&ratios)), Some(median(&baseline.cpu_ms) / median(&cpu))]
    }

    fn against_one(&self, row: &Row) -> Option<f64> {
        self.ratio(row, self.row(row.name, 1).filter(|_| row.threads > 1))
    }

    fn per_tx(&self, total: f64) -> f64 {
        total / self.transactions.max(1) as f64
    }

    /// One JSON object per row and line.
    pub fn json(&self) -> String {
        let lines = self.rows.iter().map(|row| {
            serde_json::json!({
                "workload": self.load,
                "transactions": self.transactions,
                "lanes": self.lanes,
                "segments": self.segments,
                "payload_bytes": self.payload_bytes,
                "access_bytes_per_tx": self.per_tx(self.access_bytes as f64),
                "phase": row.name,
                "threads": row.threads,
                "wall_ms": median(&row.wall_ms),
                "cpu_ms": median(&row.cpu_ms),
                "times_plain_revm_by_time_and_cpu": self.against_plain(row),
                "times_one_thread": self.against_one(row),
                "rounds": row.wall_ms.len(),
            })
        });
        lines.map(|line| format!("{line}\n")).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { load, transactions, left_out, lanes, segments, .. } = self;
        let per_tx = |bytes: usize| self.per_tx(bytes as f64);
        writeln!(
            f,
            "{load}: {transactions} transactions ({left_out} left out), {lanes} lanes, {segments} segments"
        )?;
        let (payload, access) = (per_tx(self.payload_bytes), per_tx(self.access_bytes));
        writeln!(f, "bytes per transaction: {payload:.1}, access sets and framing {access:.1} of them")?;
        writeln!(f, "phase         threads       ms    µs/tx   CPU ms  x plain revm  x own 1 thread")?;
        for row in &self.rows {
            let (wall, cpu) = (median(&row.wall_ms), median(&row.cpu_ms));
            let ratio = |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"));
            let pair = |[time, cpu]: [Option<f64>; 2]| format!("{} ({})", ratio(time), ratio(cpu));
            writeln!(
                f,
                "{:13} {:7} {wall:8.2} {:8.2} {cpu:8.2} {:>13} {:>15}",
                row.name,
                row.threads,
                self.per_tx(wall) * 1e3,
                pair(self.against_plain(row)),
                ratio(self.against_one(row)),
            )?;
        }
        writeln!(
            f,
            "in brackets: by CPU time; assemble: together with replay, compared with plain revm with outcome"
        )?;
        Ok(())
    }
}

/// Microseconds per transaction by block size, by the clock and of CPU time.
pub fn growth(tables: &[Table]) -> String {
    let wall = |row: &Row| median(&row.wall_ms);
    let cpu = |row: &Row| median(&row.cpu_ms);
    growth_of(tables, "µs", wall) + &growth_of(tables, "µs of CPU time", cpu)
}

fn growth_of(tables: &[Table], unit: &str, total: impl Fn(&Row) -> f64) -> String {
    let sizes: String = tables.iter().map(|table| format!(" {:>8}", table.transactions)).collect();
    let load = tables.first().map_or("", |table| table.load);
    let title =
        format!("{load}: {unit} per transaction by block size\nphase         threads{sizes}  last / first\n");
    let lines = tables.first().map_or(&[][..], |table| &table.rows).iter().map(|row| {
        let same = tables.iter().filter_map(|table| Some((table, table.row(row.name, row.threads)?)));
        let figures: Vec<f64> = same.map(|(table, row)| table.per_tx(total(row)) * 1e3).collect();
        let cells: String = figures.iter().map(|figure| format!(" {figure:8.2}")).collect();
        let grown = figures.last().zip(figures.first()).map_or(1.0, |(last, first)| last / first);
        format!("{:13} {:7}{cells}  {grown:12.2}\n", row.name, row.threads)
    });
    title + &lines.collect::<String>()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n => (values[(n - 1) / 2] + values[n / 2]) / 2.0,
    }
}

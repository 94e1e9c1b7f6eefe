//! Text tables: columns without borders, by display width, shortened on a narrow terminal.

use std::fmt::Write as _;

use crate::cli::output;

/// Between columns.
const GAP: usize = 2;
/// Minimum width of a shortened column.
const MIN_COLUMNS: usize = 12;

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// How a cell may be shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shorten {
    /// Nothing.
    Never,
    /// In the middle: both ends are significant.
    Middle,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) align: Align,
    pub(super) shorten: Shorten,
}

impl Column {
    pub(super) const fn left(name: &'static str) -> Self {
        Self { name, align: Align::Left, shorten: Shorten::Never }
    }

    pub(super) const fn right(name: &'static str) -> Self {
        Self { name, align: Align::Right, shorten: Shorten::Never }
    }

    /// One that may be shortened.
    pub(super) const fn long(name: &'static str) -> Self {
        Self { name, align: Align::Left, shorten: Shorten::Middle }
    }
}

/// Formats the rows, with or without a header. `None` if they do not fit into `columns` even when shortened.
pub(super) fn table(head: &[Column], rows: &[Vec<String>], with_head: bool, columns: Option<usize>) -> Option<String> {
    let names = head.iter().map(|column| column.name.to_owned()).collect();
    let mut rows: Vec<Vec<String>> = with_head.then_some(names).into_iter().chain(rows.iter().cloned()).collect();
    let mut widths = widths(head.len(), &rows);
    if let Some(room) = columns {
        for (index, column) in head.iter().enumerate().rev() {
            let over = total(&widths).saturating_sub(room);
            if over > 0 && column.shorten == Shorten::Middle {
                widths[index] = widths[index].saturating_sub(over).max(MIN_COLUMNS.min(widths[index]));
            }
        }
        if total(&widths) > room {
            return None;
        }
    }
    let mut text = String::new();
    for row in &mut rows {
        let cells = row.iter().zip(head).zip(&widths).map(|((cell, column), width)| {
            let cell = output::truncate_middle(cell, *width);
            let blank = " ".repeat(width.saturating_sub(output::width(&cell)));
            if column.align == Align::Left { cell + &blank } else { blank + &cell }
        });
        let line = cells.collect::<Vec<_>>().join(&" ".repeat(GAP));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    Some(text)
}

fn widths(columns: usize, rows: &[Vec<String>]) -> Vec<usize> {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| output::width(cell)).max();
    (0..columns).map(|column| width(column).unwrap_or(0)).collect()
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_display_width_and_shortened_from_the_last() {
        let head = [Column::long("Name"), Column::right("Size"), Column::long("Location")];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["数据库-1", "5 B", "x"]),
            row(["etcd-snapshot-node-1795602850", "20 KiB", "s3://backups/prod/abcdef"]),
        ];
        let whole = table(&head, &rows, true, None).unwrap();
        assert_eq!(
            whole,
            "Name                             Size  Location\n\
             数据库-1                          5 B  x\n\
             etcd-snapshot-node-1795602850  20 KiB  s3://backups/prod/abcdef\n"
        );
        assert_eq!(table(&head, &rows, true, Some(64)).as_ref(), Some(&whole));
        let narrow = table(&head, &rows, false, Some(50)).unwrap();
        assert_eq!(
            narrow,
            "数据库-1                         5 B  x\n\
             etcd-snap…ot-node-1795602850  20 KiB  s3:…d/abcdef\n"
        );
        assert!(narrow.lines().all(|line| output::width(line) <= 50), "{narrow}");
        assert_eq!(table(&head, &rows, true, Some(20)), None);
    }
}

//! Everything one honest validator has signed, packed: the only state a validator has in these models.

use crate::universe::{Link, Point, ROOT, VIEWS_MAX};
use std::fmt;

/// One validator's signed statements by view.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Log([Page; VIEWS_MAX as usize]);

/// The statements of one view in one word, so that hashing and comparing millions of states stays cheap.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Page(u64);

/// Where a point's eight bits of name and four of view are, and the bit that says it is there.
#[derive(Clone, Copy)]
struct Field(u32);

const PREPARED: Field = Field(0);
const SOURCE: Field = Field(13);
const COMMITTED: Field = Field(26);
const HIGH: Field = Field(39);
/// A name alone; the view is the page's.
const PROPOSED: u32 = 52;
const GUILTY: u64 = 1 << 63;

impl Page {
    fn get(self, field: Field) -> Option<Point> {
        let bits = self.0 >> field.0;
        let point = || Point { view: (bits >> 1 & 0xf) as u8, name: (bits >> 5 & 0xff) as u8 };
        (bits & 1 == 1).then(point)
    }

    fn put(&mut self, field: Field, point: Point) {
        let bits = 1 | u64::from(point.view) << 1 | u64::from(point.name) << 5;
        self.0 = self.0 & !(0x1fff << field.0) | bits << field.0;
    }
}

impl Log {
    fn page(&self, view: u8) -> Page {
        self.0[usize::from(view) - 1]
    }

    fn page_mut(&mut self, view: u8) -> &mut Page {
        &mut self.0[usize::from(view) - 1]
    }

    /// The link prepared in a view.
    pub fn prepared(&self, view: u8) -> Option<Link> {
        let page = self.page(view);
        Some(Link { source: page.get(SOURCE)?, block: page.get(PREPARED)? })
    }

    /// The block committed in a view.
    pub fn committed(&self, view: u8) -> Option<Point> {
        self.page(view).get(COMMITTED)
    }

    /// The certificate reported when the view was given up.
    pub fn gave_up(&self, view: u8) -> Option<Point> {
        self.page(view).get(HIGH)
    }

    /// The block proposed in a view.
    pub fn proposed(&self, view: u8) -> Option<Point> {
        let bits = self.page(view).0 >> PROPOSED;
        (bits & 1 == 1).then_some(Point { view, name: (bits >> 1 & 0xff) as u8 })
    }

    /// Notes a prepare vote.
    pub fn prepare(&mut self, link: Link) {
        let page = self.page_mut(link.block.view);
        page.put(SOURCE, link.source);
        page.put(PREPARED, link.block);
    }

    /// Notes a commit vote.
    pub fn commit(&mut self, block: Point) {
        self.page_mut(block.view).put(COMMITTED, block);
    }

    /// Notes a timeout.
    pub fn give_up(&mut self, view: u8, high: Point) {
        self.page_mut(view).put(HIGH, high);
    }

    /// Notes a proposal.
    pub fn propose(&mut self, block: Point) {
        let page = self.page_mut(block.view);
        page.0 = page.0 & !(0x1ff << PROPOSED) | (1 | u64::from(block.name) << 1) << PROPOSED;
    }

    /// Whether the auditor has found a contradiction in what was signed.
    pub fn guilty(&self) -> bool {
        self.0[0].0 & GUILTY != 0
    }

    /// Notes such a contradiction: a later statement may overwrite one of the two.
    pub fn convict(&mut self) {
        self.0[0].0 |= GUILTY;
    }

    /// Views with any statement, ascending.
    pub fn views(&self) -> impl Iterator<Item = u8> + use<> {
        let pages = self.0;
        (1..=VIEWS_MAX).filter(move |view| pages[usize::from(*view) - 1].0 & !GUILTY != 0)
    }

    /// The lock that these statements leave (C-4.1, C-4.2): the highest source of a prepare or view of a commit.
    pub fn lock(&self) -> Point {
        let sources = self.views().filter_map(|view| self.prepared(view)).map(|link| link.source);
        let commits = self.views().filter_map(|view| self.committed(view));
        highest(sources.chain(commits))
    }

    /// The least high certificate that whoever signed this holds.
    pub fn high(&self) -> Point {
        highest(std::iter::once(self.lock()).chain(self.views().filter_map(|view| self.gave_up(view))))
    }

    /// The least view that whoever signed this is in: a commit answers a certificate, which ends its view.
    pub fn view(&self) -> u8 {
        let signed_in = |view: &u8| self.prepared(*view).is_some() || self.gave_up(*view).is_some();
        let voted = self.views().filter(signed_in).max().unwrap_or(1);
        let committed = self.views().filter_map(|view| self.committed(view)).map(|block| block.view + 1);
        let proposed = self.views().filter(|view| self.proposed(*view).is_some());
        voted.max(committed.max().unwrap_or(1)).max(proposed.max().unwrap_or(1))
    }

    /// The same statements with every block renamed.
    pub fn renamed(&self, name: impl Fn(Point) -> Point) -> Self {
        let mut renamed = *self;
        for page in &mut renamed.0 {
            for field in [PREPARED, SOURCE, COMMITTED, HIGH] {
                if let Some(point) = page.get(field) {
                    page.put(field, name(point));
                }
            }
        }
        for view in self.views() {
            if let Some(block) = self.proposed(view) {
                renamed.propose(name(block));
            }
        }
        renamed
    }
}

/// The first of the points with the highest view: what is learnt later at an equal view replaces nothing.
fn highest(points: impl Iterator<Item = Point>) -> Point {
    points.fold(ROOT, |best, point| if point.view > best.view { point } else { best })
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut statements = f.debug_list();
        for view in self.views() {
            if let Some(block) = self.proposed(view) {
                statements.entry(&format_args!("propose {block:?}"));
            }
            if let Some(Link { source, block }) = self.prepared(view) {
                statements.entry(&format_args!("prepare {source:?}->{block:?}"));
            }
            if let Some(block) = self.committed(view) {
                statements.entry(&format_args!("commit {block:?}"));
            }
            if let Some(high) = self.gave_up(view) {
                statements.entry(&format_args!("timeout {view} reporting {high:?}"));
            }
        }
        if self.guilty() {
            statements.entry(&"slashable");
        }
        statements.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_back_and_disturbs_nothing_else() {
        let (a, b, c) =
            (Point { view: 2, name: 255 }, Point { view: 5, name: 129 }, Point { view: 5, name: 77 });
        let mut log = Log::default();
        log.prepare(Link { source: a, block: b });
        log.commit(c);
        log.give_up(5, a);
        log.propose(b);
        assert_eq!(log.prepared(5), Some(Link { source: a, block: b }));
        assert_eq!((log.committed(5), log.gave_up(5), log.proposed(5)), (Some(c), Some(a), Some(b)));
        assert!(!log.guilty());
        log.convict();
        log.propose(c);
        assert_eq!((log.committed(5), log.gave_up(5), log.proposed(5)), (Some(c), Some(a), Some(c)));
        assert_eq!(log.views().collect::<Vec<_>>(), [5]);
        assert_eq!((log.lock(), log.high(), log.view()), (c, c, 6));
    }
}

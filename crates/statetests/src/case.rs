//! Cases: a fixture holds one for every fork and variant.

use crate::{Fixture, Post};

/// One fork and one choice of data, gas limit and value.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The test.
    pub fixture: &'a Fixture,
    /// Name of the fork, as the fixture writes it.
    pub fork: &'a str,
    /// What must come out.
    pub post: &'a Post,
}

impl Case<'_> {
    /// What to call the case beside its test's name.
    pub fn label(&self) -> String {
        let indexes = self.post.indexes;
        format!("{}/d{}g{}v{}", self.fork, indexes.data, indexes.gas, indexes.value)
    }
}

/// All cases of a fixture.
pub fn cases(fixture: &Fixture) -> impl Iterator<Item = Case<'_>> {
    let forks = fixture.post.iter();
    forks.flat_map(move |(fork, posts)| posts.iter().map(move |post| Case { fixture, fork, post }))
}

//! Numbers out of a fuzzer's bytes. Where the bytes end, everything is zero, so that a shorter input means a simpler run.

/// Reads from the front.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number below `limit`, which is not zero and fits a byte.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    /// At most `limit` of the bytes that are left.
    pub fn take(&mut self, limit: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(self.0.len().min(limit));
        self.0 = rest;
        taken
    }
}

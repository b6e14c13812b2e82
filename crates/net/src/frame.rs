//! Frames on a stream: a length (u32, little endian) and that many bytes. The length is checked before anything
//! is allocated, and memory grows with the bytes that arrive, never with what a length promises.

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use std::io;

/// Bytes of the length prefix.
pub(crate) const PREFIX_BYTES: usize = 4;

/// First allocation for a frame; larger frames grow as they arrive.
const STEP_BYTES: usize = 256 << 10;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame of {bytes} bytes, at most {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    #[error("an empty frame")]
    Empty,
    #[error("a frame that is not {what}")]
    Malformed { what: &'static str },
    #[error("the stream ended")]
    End,
    #[error("the stream ended inside a frame of {bytes} bytes")]
    Truncated { bytes: usize },
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl FrameError {
    /// Whether only a misbehaving peer can cause this, rather than a lost connection.
    pub(crate) fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Empty | Self::Malformed { .. })
    }
}

/// Reads the length of the next frame: between 1 and `limit`.
pub(crate) async fn read_length<R: AsyncRead + Unpin>(
    stream: &mut R,
    limit: usize,
) -> Result<usize, FrameError> {
    let mut prefix = [0; PREFIX_BYTES];
    let mut filled = 0;
    while filled < PREFIX_BYTES {
        match stream.read(&mut prefix[filled..]).await? {
            0 if filled == 0 => return Err(FrameError::End),
            0 => return Err(FrameError::Truncated { bytes: PREFIX_BYTES }),
            read => filled += read,
        }
    }
    match u32::from_le_bytes(prefix) as usize {
        0 => Err(FrameError::Empty),
        bytes if bytes > limit => Err(FrameError::TooLarge { bytes, limit }),
        bytes => Ok(bytes),
    }
}

/// Reads `bytes` bytes after [`read_length`].
pub(crate) async fn read_body<R: AsyncRead + Unpin>(
    stream: &mut R,
    bytes: usize,
) -> Result<Vec<u8>, FrameError> {
    let mut body = Vec::with_capacity(bytes.min(STEP_BYTES));
    while body.len() < bytes {
        let start = body.len();
        body.resize(bytes.min(start + STEP_BYTES), 0);
        match stream.read_exact(&mut body[start..]).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(FrameError::Truncated { bytes });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(body)
}

/// Reads a whole frame of at most `limit` bytes.
pub(crate) async fn read_frame<R: AsyncRead + Unpin>(
    stream: &mut R,
    limit: usize,
) -> Result<Vec<u8>, FrameError> {
    let bytes = read_length(stream, limit).await?;
    read_body(stream, bytes).await
}

/// Appends a frame to a buffer.
pub(crate) fn push_frame(buffer: &mut Vec<u8>, body: &[u8]) {
    buffer.extend_from_slice(&prefix(body.len()));
    buffer.extend_from_slice(body);
}

/// The prefix of a body. Bodies are bounded far below 4 GiB by their senders.
pub(crate) fn prefix(bytes: usize) -> [u8; PREFIX_BYTES] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// Writes one frame and flushes it.
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(stream: &mut W, body: &[u8]) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(PREFIX_BYTES + body.len());
    push_frame(&mut buffer, body);
    stream.write_all(&buffer).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;

    fn read(bytes: &[u8], limit: usize) -> Result<Vec<u8>, FrameError> {
        block_on(read_frame(&mut Cursor::new(bytes.to_vec()), limit))
    }

    #[test]
    fn frames_round_trip_at_every_step_boundary() {
        for length in [1, 4, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES] {
            let body: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut wire = Cursor::new(Vec::new());
            block_on(write_frame(&mut wire, &body)).unwrap();
            assert_eq!(read(wire.get_ref(), length).unwrap(), body);
        }
    }

    #[test]
    fn oversized_empty_and_truncated_frames_are_told_apart() {
        assert!(matches!(read(&u32::MAX.to_le_bytes(), 10), Err(FrameError::TooLarge { limit: 10, .. })));
        assert!(matches!(read(&[0; 4], 10), Err(FrameError::Empty)));
        assert!(matches!(read(&[5, 0, 0, 0, 1, 2], 10), Err(FrameError::Truncated { bytes: 5 })));
        assert!(matches!(read(&[5, 0], 10), Err(FrameError::Truncated { .. })));
        assert!(matches!(read(&[], 10), Err(FrameError::End)));
    }
}

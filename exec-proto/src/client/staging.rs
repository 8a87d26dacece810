//! A file that is staged as it comes, and need not be in memory.

use super::{Session, check_path};
use crate::{FileChunk, MAX_DATA_BYTES, ProtoError, Request};

impl Session {
    /// Begins a file as [`Session::stage_file`] has it; its content comes by
    /// [`Session::stage_piece`], and nothing else until [`Session::end_staging`]. A
    /// session that ends before leaves no file.
    ///
    /// # Errors
    /// [`ProtoError::Misuse`] for a path that is not allowed, or at a bad moment.
    pub fn begin_staging(&mut self, path: &[u8], mode: u32) -> Result<(), ProtoError> {
        self.ready_for_request()?;
        check_path(path)?;
        self.staging = true;
        self.chunk(path, mode & 0o7777, true, false, &[]);
        Ok(())
    }

    /// Queues content.
    ///
    /// # Errors
    /// [`ProtoError::Misuse`] without a file that was begun.
    pub fn stage_piece(&mut self, data: &[u8]) -> Result<(), ProtoError> {
        self.check_staging()?;
        for piece in data.chunks(MAX_DATA_BYTES) {
            self.chunk(&[], 0, false, false, piece);
        }
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// As [`Session::stage_piece`].
    pub fn end_staging(&mut self) -> Result<(), ProtoError> {
        self.check_staging()?;
        self.staging = false;
        self.chunk(&[], 0, false, true, &[]);
        Ok(())
    }

    fn check_staging(&self) -> Result<(), ProtoError> {
        match self.staging && !self.is_over() {
            true => Ok(()),
            false => Err(ProtoError::Misuse {
                what: "no file is being staged, or the session is over",
            }),
        }
    }

    fn chunk(&mut self, path: &[u8], mode: u32, first: bool, last: bool, data: &[u8]) {
        Request::FileChunk(FileChunk {
            path,
            mode,
            first,
            last,
            ack: false,
            data,
        })
        .encode(&mut self.out);
    }
}

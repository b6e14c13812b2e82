//! The whole process: start, serve, stop, start again.

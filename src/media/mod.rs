//! The hands: memory segments and devices. All unsafe and all file I/O.

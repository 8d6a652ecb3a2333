//! The client against a small daemon of this file's own, which keeps payloads in a map.

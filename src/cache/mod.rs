//! The walks: lookup, fetch, put, settle.

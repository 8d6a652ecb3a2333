//! Shelves without opinions: RAM and NVMe.

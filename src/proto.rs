//! Generated protobuf; the contract is in `proto/kvtier/v1`.

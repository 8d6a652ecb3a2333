//! What each call needs. A call that is not here is refused.

use crate::access::Permission;
use crate::access::Permission::{
    AdminChange, AdminLook, CacheRead, CacheWrite, SessionOpen, UsageExport, UsageRead, UsageSettle,
};

/// Whose data a call may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// That of the tenant whom the request names: the service checks that the caller may act for it.
    Named,
    /// That of all tenants: only who may act for every one of them.
    Every,
}

/// The calls of `kvtier.v1`, with what each needs.
pub(super) const CALLS: &[(&str, Permission, Reach)] = &[
    ("/kvtier.v1.Sessions/OpenSession", SessionOpen, Reach::Named),
    ("/kvtier.v1.Sessions/RegisterNamespace", SessionOpen, Reach::Named),
    ("/kvtier.v1.Cache/Lookup", CacheRead, Reach::Named),
    ("/kvtier.v1.Cache/Prefetch", CacheRead, Reach::Named),
    ("/kvtier.v1.Cache/Accept", CacheRead, Reach::Named),
    ("/kvtier.v1.Cache/FinishRequest", CacheRead, Reach::Named),
    ("/kvtier.v1.Cache/Fetch", CacheRead, Reach::Named),
    ("/kvtier.v1.Cache/Release", CacheRead, Reach::Named),
    ("/kvtier.v1.Cache/Renew", CacheRead, Reach::Named),
    ("/kvtier.v1.Cache/AttachRegion", CacheRead, Reach::Named),
    ("/kvtier.v1.Cache/DetachRegion", CacheRead, Reach::Named),
    ("/kvtier.v1.Cache/LoadInto", CacheRead, Reach::Named),
    // Its answer is places in memory that shows all tenants' blocks.
    ("/kvtier.v1.Cache/Load", CacheRead, Reach::Every),
    ("/kvtier.v1.Cache/Put", CacheWrite, Reach::Named),
    ("/kvtier.v1.Cache/PutFrom", CacheWrite, Reach::Named),
    ("/kvtier.v1.Cache/Reserve", CacheWrite, Reach::Named),
    ("/kvtier.v1.Cache/Commit", CacheWrite, Reach::Named),
    ("/kvtier.v1.Usage/Settle", UsageSettle, Reach::Named),
    ("/kvtier.v1.Usage/CorrectUsage", UsageExport, Reach::Named),
    ("/kvtier.v1.Usage/SummarizeUsage", UsageRead, Reach::Named),
    ("/kvtier.v1.Usage/SummarizeStorage", UsageRead, Reach::Named),
    ("/kvtier.v1.Usage/ExportUsage", UsageExport, Reach::Every),
    ("/kvtier.v1.Usage/AcknowledgeUsage", UsageExport, Reach::Every),
    ("/kvtier.v1.Admin/GetStatus", AdminLook, Reach::Every),
    ("/kvtier.v1.Admin/InspectNamespaces", AdminLook, Reach::Every),
    ("/kvtier.v1.Admin/InspectPrefix", AdminLook, Reach::Named),
    ("/kvtier.v1.Admin/InspectBlock", AdminLook, Reach::Every),
    ("/kvtier.v1.Admin/InspectAccounts", AdminLook, Reach::Every),
    ("/kvtier.v1.Admin/Quiesce", AdminLook, Reach::Every),
    ("/kvtier.v1.Admin/Evict", AdminChange, Reach::Named),
    ("/kvtier.v1.Admin/Purge", AdminChange, Reach::Named),
    ("/kvtier.v1.Admin/Pin", AdminChange, Reach::Named),
    ("/kvtier.v1.Admin/Unpin", AdminChange, Reach::Named),
    ("/kvtier.v1.Admin/Retire", AdminChange, Reach::Every),
    ("/kvtier.v1.Admin/Verify", AdminChange, Reach::Every),
    ("/kvtier.v1.Admin/SetQuota", AdminChange, Reach::Every),
    ("/kvtier.v1.Admin/Drain", AdminChange, Reach::Every),
];

/// Services that anybody may call: whether the daemon lives is no secret.
pub(super) const OPEN: &[&str] = &["/grpc.health.v1.Health/"];
/// Services that everybody who is known may call: the contract is no secret either, but no business of strangers.
pub(super) const KNOWN: &[&str] =
    &["/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"];

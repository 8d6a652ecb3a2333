//! Which sums are asked for: whose, and of which hours.

use clap::Args;

use crate::client::UsageFilter;
use crate::vocab::TenantName;

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only this tenant.
    #[arg(long, value_name = "NAME", value_parser = TenantName::parse)]
    tenant: Option<TenantName>,
    /// Only from this hour on, in hours since 1970.
    #[arg(long, value_name = "HOUR", default_value_t = 0)]
    from_hour: u32,
    /// Only before this hour.
    #[arg(long, value_name = "HOUR", value_parser = clap::value_parser!(u32).range(1..))]
    until_hour: Option<u32>,
}

impl Filter {
    /// Told apart by `group_by`; by what is usual where it is empty.
    pub(super) fn request(&self, group_by: &[String]) -> UsageFilter {
        UsageFilter {
            tenant: self.tenant.clone(),
            from_hour: self.from_hour,
            until_hour: self.until_hour,
            group_by: group_by.to_vec(),
        }
    }
}

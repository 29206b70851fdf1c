//! `failures` of a policy: which answers of a service count as failures, and
//! which of them as hard ones. Refuses to know what is counted for.

use serde::Deserialize;

use super::call_policy::Merge;
use super::status::{GrpcStatus, StatusRange};
use crate::config::Checker;

/// Each list replaces the usual one; an empty one is none at all. What is hard
/// is a failure by being so.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Failures {
    /// HTTP statuses that are failures.
    pub statuses: Option<Vec<StatusRange>>,
    /// HTTP statuses that are hard failures.
    pub hard_statuses: Option<Vec<StatusRange>>,
    /// gRPC statuses that are failures.
    pub grpc_statuses: Option<Vec<GrpcStatus>>,
    /// gRPC statuses that are hard failures.
    pub hard_grpc_statuses: Option<Vec<GrpcStatus>>,
}

impl Merge for Failures {
    fn over(&self, below: &Self) -> Self {
        Self {
            statuses: self.statuses.over(&below.statuses),
            hard_statuses: self.hard_statuses.over(&below.hard_statuses),
            grpc_statuses: self.grpc_statuses.over(&below.grpc_statuses),
            hard_grpc_statuses: self.hard_grpc_statuses.over(&below.hard_grpc_statuses),
        }
    }
}

impl Failures {
    pub(crate) fn check(&self, base: &str, check: &mut Checker<'_>) {
        let lists = [
            ("statuses", &self.statuses),
            ("hardStatuses", &self.hard_statuses),
        ];
        for (name, list) in lists {
            for (index, range) in list.iter().flatten().enumerate() {
                check.require(
                    range.first >= 400,
                    format!("{base}.failures.{name}[{index}]"),
                    format!("`{range}` says that it went well; expected `4xx`, `5xx` or a status from 400 to 599"),
                );
            }
        }
    }
}

//! Fault isolation: a failing service does not take its callers down, is not
//! hammered, and is let back in as soon as it is well.

mod amplification;
mod balancers;
mod chain;
mod deadlines;
mod tries;

//! Fault isolation: a failing service does not take its callers down, is not
//! hammered, and is let back in as soon as it is well.

mod all_down; // callers hear so at once, and the service has peace
mod amplification; // retries of several hops do not multiply
mod balancers; // each request goes where policy says
mod blame; // what counts as a failure, and whose it is
mod bulkhead; // a caller that floods
mod capacity; // an application that can do so much, and callers that do not wait
mod chain; // services that call one another
mod deadlines; // nobody works for a caller that has gone
mod events; // an ejected endpoint explains itself
mod fallback; // what stands in
mod fault; // injected on purpose
mod health; // endpoints and applications that are asked for their health
mod hedging; // one slow answer in fifty
mod mirror; // copies
mod one_of_three; // nobody notices
mod overload; // more than a server can do
mod rate_limit; // more than a server takes on
mod returns; // used again as soon as it is well, and not before
mod scene; // a caller's sidecar, and three replicas to be broken
mod tries; // what is told of each

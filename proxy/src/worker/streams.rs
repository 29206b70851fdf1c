//! TLSRoutes and TCPRoutes as one worker serves them: whose turn it is among
//! the backends of a route. Made at its first connection, forgotten with the view.

use std::rc::Rc;
use std::sync::Arc;

use selvage_policy::flag::Flag;
use selvage_policy::route::weights::Turns;
use selvage_policy::route::{RouteTarget, StreamRoute};

use super::Worker;
use crate::error::ProxyError;
use crate::upstream::Destination;

/// Routes remembered per worker; beyond it the turns begin anew.
const ROUTES: usize = 16_384;

fn invalid(detail: impl Into<String>) -> ProxyError {
    ProxyError::new(Flag::InvalidBackend, detail.into())
}

impl Worker {
    /// The backend of the next connection of a route, waited for.
    ///
    /// # Errors
    /// `invalid-backend` where it has none, or the turn is with one that does
    /// not exist; `not-ready` where nobody said so in time.
    pub async fn stream_backend(
        &self,
        route: &Arc<StreamRoute>,
    ) -> Result<Rc<Destination>, ProxyError> {
        let backend = self
            .turn(route)
            .and_then(|index| route.backends.get(index))
            .ok_or_else(|| invalid("the route has no backend with a weight"))?;
        let to = match &backend.to {
            RouteTarget::Service(to) => to,
            RouteTarget::Invalid(why) => return Err(invalid(&**why)),
        };
        self.target(to).await
    }

    fn turn(&self, route: &Arc<StreamRoute>) -> Option<usize> {
        // Routes without a view are routes of nobody.
        self.view().ok()?;
        let mut resolved = self.resolved.borrow_mut();
        let address = Arc::as_ptr(route).addr();
        if resolved.streams.len() >= ROUTES && !resolved.streams.contains_key(&address) {
            resolved.streams.clear();
        }
        // It is kept, so that no other takes its address.
        let (_, turns) = resolved.streams.entry(address).or_insert_with(|| {
            let weights = route.backends.iter().map(|backend| backend.weight);
            let turns = self.with_rng(|rng| Turns::begin(weights, rng));
            (route.clone(), turns)
        });
        turns.take()
    }
}

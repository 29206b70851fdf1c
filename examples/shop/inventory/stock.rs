//! What Redis keeps: the hash `stock` of what is left by product, and `reservation:ORDER` of what
//! each order took. Every change is one script, so that replicas never sell one thing twice.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError};
use tokio::sync::Mutex;

/// How long to wait for Redis, to connect and for each answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Takes `ARGV[2]` of product `ARGV[1]` from the stock `KEYS[1]`, and notes it in `KEYS[2]`.
const RESERVE: &str = "
    if redis.call('EXISTS', KEYS[2]) == 1 then return 'before' end
    local left = redis.call('HGET', KEYS[1], ARGV[1])
    if not left then return 'unknown' end
    if tonumber(left) < tonumber(ARGV[2]) then return 'short' end
    redis.call('HINCRBY', KEYS[1], ARGV[1], -ARGV[2])
    redis.call('HSET', KEYS[2], 'sku', ARGV[1], 'quantity', ARGV[2])
    return 'now'";

/// Gives back to the stock `KEYS[1]` what `KEYS[2]` notes, if it is there.
const RELEASE: &str = "
    local taken = redis.call('HMGET', KEYS[2], 'sku', 'quantity')
    if taken[1] then redis.call('HINCRBY', KEYS[1], taken[1], taken[2]) end
    return redis.call('DEL', KEYS[2])";

/// How much of a product there is at first: `wool=40`.
#[derive(Debug, Clone)]
pub(crate) struct Supply {
    sku: String,
    quantity: u32,
}

impl FromStr for Supply {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (sku, quantity) = text.split_once('=').ok_or("expected SKU=N")?;
        let quantity = quantity
            .parse()
            .map_err(|error| format!("{quantity:?} is no quantity: {error}"))?;
        let sku = sku.to_owned();
        Ok(Self { sku, quantity })
    }
}

/// How a reservation went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// It was made.
    Now,
    /// It had been made already.
    Before,
    /// There is not enough.
    Short,
    /// There is no such product.
    Unknown,
}

/// The stock in Redis. One connection carries everything; a broken one is made anew.
pub(crate) struct Stock {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Stock {
    /// Of the Redis at `url`; nothing is connected yet.
    ///
    /// # Errors
    /// The URL is malformed.
    pub(crate) fn open(url: &str) -> Result<Self, RedisError> {
        Ok(Self {
            client: Client::open(url)?,
            connection: Mutex::new(None),
        })
    }

    /// Puts products on the shelf that were never there.
    pub(crate) async fn supply(&self, supplies: &[Supply]) -> Result<(), RedisError> {
        for supply in supplies {
            let mut command = redis::cmd("HSETNX");
            command.arg("stock").arg(&supply.sku).arg(supply.quantity);
            let _: u32 = self.ask(&command).await?;
        }
        Ok(())
    }

    /// What is left, by product.
    pub(crate) async fn left(&self) -> Result<BTreeMap<String, i64>, RedisError> {
        self.ask(redis::cmd("HGETALL").arg("stock")).await
    }

    /// Takes stock for an order, once.
    pub(crate) async fn reserve(
        &self,
        order: &str,
        sku: &str,
        quantity: u32,
    ) -> Result<Reserved, RedisError> {
        let mut command = script(RESERVE, order);
        let said: String = self.ask(command.arg(sku).arg(quantity)).await?;
        Ok(match said.as_str() {
            "now" => Reserved::Now,
            "before" => Reserved::Before,
            "short" => Reserved::Short,
            _ => Reserved::Unknown,
        })
    }

    /// Gives back what an order took; nothing happens where it took nothing.
    pub(crate) async fn release(&self, order: &str) -> Result<(), RedisError> {
        let _: u32 = self.ask(&script(RELEASE, order)).await?;
        Ok(())
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let mut connection = self.connection().await?;
        let answer = command.query_async(&mut connection).await;
        if matches!(&answer, Err(error) if error.is_io_error() || error.is_connection_dropped()) {
            *self.connection.lock().await = None;
        }
        answer
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut known = self.connection.lock().await;
        if let Some(connection) = &*known {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(known.insert(connection).clone())
    }
}

fn script(text: &str, order: &str) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command
        .arg(text)
        .arg(2)
        .arg("stock")
        .arg(format!("reservation:{order}"));
    command
}

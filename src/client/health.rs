//! Whether a daemon serves: the standard's health check, and the cheapest call there is.

use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::{Client, ClientError};

/// `grpc.health.v1.HealthCheckResponse` (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>), so that the
/// client needs no crate for it.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthReply {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;

impl Client {
    /// Whether the daemon takes requests.
    ///
    /// # Errors
    /// When the daemon can't be asked.
    pub async fn serves(&self) -> Result<bool, ClientError> {
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let mut service = tonic::client::Grpc::new(self.channel());
        let asked = async {
            service.ready().await.map_err(|error| Status::from_error(error.into()))?;
            // A request about the whole server is empty.
            let codec = ProstCodec::<(), HealthReply>::default();
            service.unary(Request::new(()), path, codec).await
        };
        Ok(self.answer("Health/Check", asked).await?.status == SERVING)
    }
}

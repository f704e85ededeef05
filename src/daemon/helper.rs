//! The daemon's end of the conversation with the root helper.
//!
//! One connection, one call at a time, made again when the helper was restarted. Only a call that
//! can be repeated is repeated; a launch that was cut off is taken back by its caller instead.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use smol::Async;

use super::wire::{Wire, WireError};
use crate::host::install::{restart_command, start_command};
use crate::model::OpId;
use crate::protocol::root::{RootAnswer, RootCall, RootReply, RootRequest};
use crate::protocol::{Fault, FaultKind, Hello};
use crate::vmm::deadline::within;

/// The helper's longest deed is killing a monitor and waiting for its end.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The root helper, as seen from here.
#[derive(Debug)]
pub struct Helper {
    path: PathBuf,
    connection: smol::lock::Mutex<Option<Wire>>,
}

impl Helper {
    /// The helper that listens at `path`; nothing is connected yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), connection: smol::lock::Mutex::new(None) }
    }

    /// Asks and waits for the answer.
    pub async fn call(
        &self,
        op: OpId,
        request: RootRequest,
        files: Vec<OwnedFd>,
    ) -> Result<(RootReply, Vec<OwnedFd>), Fault> {
        let mut connection = self.connection.lock().await;
        if connection.as_ref().is_none_or(|wire| !wire.is_open()) {
            *connection = Some(self.connect().await?);
        }
        let Some(wire) = connection.as_mut() else {
            return Err(self.silent("it closed the connection"));
        };
        let call = RootCall { op, request };
        let outcome = within(ANSWER_LIMIT, exchange(wire, &call, &files)).await;
        match outcome.unwrap_or_else(late) {
            Ok((answer, files)) => answer.map(|reply| (reply, files)),
            Err(error) => {
                *connection = None;
                Err(self.silent(&error.to_string()))
            }
        }
    }

    /// Like [`Helper::call`], once more when the connection broke: for requests without descriptors
    /// whose repetition does no harm.
    pub async fn call_again(&self, op: OpId, request: RootRequest) -> Result<(RootReply, Vec<OwnedFd>), Fault> {
        match self.call(op, request.clone(), Vec::new()).await {
            Err(fault) if fault.kind == FaultKind::Unavailable => self.call(op, request, Vec::new()).await,
            other => other,
        }
    }

    async fn connect(&self) -> Result<Wire, Fault> {
        let stream = Async::<UnixStream>::connect(&self.path).await.map_err(|e| self.silent(&e.to_string()))?;
        let stream = stream.into_inner().map_err(|e| self.silent(&e.to_string()))?;
        let mut wire = Wire::new(stream).map_err(|e| self.silent(&e.to_string()))?;
        let greeting = async {
            wire.send(&Hello::ours(), &[]).await?;
            wire.receive_value::<Hello>().await
        };
        let (hello, _) =
            within(ANSWER_LIMIT, greeting).await.unwrap_or_else(late).map_err(|e| self.silent(&e.to_string()))?;
        hello.check("the root helper", restart_command())?;
        Ok(wire)
    }

    fn silent(&self, why: &str) -> Fault {
        Fault::new(FaultKind::Unavailable, format!("the root helper does not answer at {}", self.path.display()))
            .cause(why)
            .hint(start_command())
    }
}

/// The fault of an answer that does not belong to the question.
pub(super) fn unexpected(reply: &RootReply) -> Fault {
    Fault::new(FaultKind::OperationFailed, "the root helper answered something else").cause(format!("{reply:?}"))
}

async fn exchange(
    wire: &mut Wire,
    call: &RootCall,
    files: &[OwnedFd],
) -> Result<(RootAnswer, Vec<OwnedFd>), WireError> {
    let beside: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    wire.send(call, &beside).await?;
    wire.receive_value::<RootAnswer>().await
}

fn late<T>() -> Result<T, WireError> {
    Err(WireError::Socket(std::io::ErrorKind::TimedOut.into()))
}

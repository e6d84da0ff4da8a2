//! stub
use crate::failure::Result;
#[derive(Debug, clap::Args)]
pub struct Args {}
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {}
pub fn run(_: &Args) -> Result<()> {
    Ok(())
}
pub fn worker(_: &WorkerArgs) -> Result<()> {
    Ok(())
}

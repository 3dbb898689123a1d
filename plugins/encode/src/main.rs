//! `conclave-encode MODULE COMPONENT`: for `plugins/build`, which has no `conclave` yet whose
//! `policy build` could do it.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use conclave_encode::encode;

fn main() -> Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    ensure!(paths.len() == 2, "usage: conclave-encode MODULE COMPONENT");
    let (input, output) = (&paths[0], &paths[1]);
    let module =
        std::fs::read(input).with_context(|| format!("cannot read {}", input.display()))?;
    let component = encode(&module)
        .with_context(|| format!("{} does not make a component", input.display()))?;
    std::fs::write(output, component).with_context(|| format!("cannot write {}", output.display()))
}

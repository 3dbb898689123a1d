//! Two changes that make calls cheaper, which each have an instance of their own, and change
//! nothing that a policy can see.

use std::convert::Infallible;
use std::mem;

use anyhow::{Result, ensure};
use wasm_encoder::reencode::{Error, Reencode, ReencodeComponent, utils};
use wasm_encoder::{Component, DataSection, ExportSection, MemorySection, Module, ModuleSection};
use wasmparser::{Data, Export, MemorySectionReader, Parser, Validator};

/// Takes from a core module the functions by which the host would have an answer's memory freed:
/// the instance is thrown away as soon as the answer is read.
pub(crate) fn unfreed(module: &[u8]) -> Result<Vec<u8>> {
    let mut changed = Module::new();
    Unfreed.parse_core_module(&mut changed, Parser::new(0), module)?;
    Ok(changed.finish())
}

struct Unfreed;

impl Reencode for Unfreed {
    type Error = Infallible;

    fn parse_export(
        &mut self,
        exports: &mut ExportSection,
        export: Export<'_>,
    ) -> Result<(), Error<Infallible>> {
        if export.name.starts_with("cabi_post_") {
            return Ok(());
        }
        utils::parse_export(self, exports, export)
    }
}

/// Puts the data of a component's module where its memory is.
///
/// A module that imports its memory gets it from a small one beside it. (One with a memory of its
/// own would need two beside it if it logs, since what lowers a message wants the memory before
/// there is any.) wasmtime maps data into a fresh memory if both are in one module; it copies the
/// data of another.
pub(crate) fn data_beside_memory(component: &[u8]) -> Result<Vec<u8>> {
    let mut changed = Component::new();
    let mut mover = Mover::default();
    mover.parse_component(&mut changed, Parser::new(0), component)?;
    ensure!(mover.data.is_empty(), "no module after that with the data has a memory");
    let changed = changed.finish();
    Validator::new().validate_all(&changed)?;
    Ok(changed)
}

/// Takes data from modules without a memory to the next one that has it.
#[derive(Default)]
struct Mover {
    /// Without a place yet.
    data: DataSection,
    /// The module at hand copies from its data by itself, for which it must stay.
    stays: bool,
    /// The module at hand has a memory.
    has_memory: bool,
}

impl Reencode for Mover {
    type Error = Infallible;

    fn data_count(&mut self, count: u32) -> Result<u32, Error<Infallible>> {
        self.stays = true;
        Ok(count)
    }

    fn parse_data(
        &mut self,
        section: &mut DataSection,
        datum: Data<'_>,
    ) -> Result<(), Error<Infallible>> {
        if self.stays || self.has_memory {
            return utils::parse_data(self, section, datum);
        }
        let mut data = mem::take(&mut self.data);
        utils::parse_data(self, &mut data, datum)?;
        self.data = data;
        Ok(())
    }

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: MemorySectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        self.has_memory = true;
        utils::parse_memory_section(self, memories, section)
    }
}

impl ReencodeComponent for Mover {
    fn parse_component_submodule(
        &mut self,
        component: &mut Component,
        parser: Parser,
        submodule: &[u8],
    ) -> Result<(), Error<Infallible>> {
        let mut module = Module::new();
        (self.stays, self.has_memory) = (false, false);
        self.parse_core_module(&mut module, parser, submodule)?;
        if self.has_memory && !self.data.is_empty() {
            module.section(&mem::take(&mut self.data));
        }
        component.section(&ModuleSection(&module));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wasmparser::Payload;

    use super::*;

    fn binary(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("a test's own text")
    }

    /// Two modules, where the second's memory is the first's; `main` is how the first goes on.
    fn pair(main: &str) -> Vec<u8> {
        binary(&format!(
            r#"(component
                (core module $main (import "env" "memory" (memory 1)) {main})
                (core module $side (memory (export "memory") 1))
                (core instance $side (instantiate $side))
                (core instance $main (instantiate $main (with "env" (instance $side)))))"#
        ))
    }

    /// How many pieces of data the modules have.
    fn pieces(component: &[u8]) -> Vec<u32> {
        let mut pieces = Vec::new();
        for payload in Parser::new(0).parse_all(component) {
            match payload.expect("a component") {
                Payload::ModuleSection { .. } => pieces.push(0),
                Payload::DataSection(data) => *pieces.last_mut().expect("a module") = data.count(),
                _ => {}
            }
        }
        pieces
    }

    #[test]
    fn only_what_frees_answers_goes() {
        let module = binary(
            r#"(module
                (func (export "rank") (result i32) i32.const 7)
                (func (export "cabi_post_rank") (param i32))
                (func (export "cabi_realloc")))"#,
        );
        let mut exports = Vec::new();
        for payload in Parser::new(0).parse_all(&unfreed(&module).expect("a module")) {
            if let Payload::ExportSection(section) = payload.expect("a module") {
                exports.extend(section.into_iter().map(|e| e.expect("an export").name.to_owned()));
            }
        }
        assert_eq!(exports, ["rank", "cabi_realloc"]);
    }

    #[test]
    fn data_goes_where_the_memory_is() {
        let component = pair(r#"(data (i32.const 8) "a") (data (i32.const 16) "b")"#);
        assert_eq!(pieces(&component), [2, 0]);
        let changed = data_beside_memory(&component).expect("a component");
        assert_eq!(pieces(&changed), [0, 2]);
    }

    #[test]
    fn data_stays_where_it_is_used_or_has_its_memory() {
        let copies = "(func i32.const 0 i32.const 0 i32.const 1 memory.init 0)";
        for component in [
            pair(&format!(r#"{copies} (data "a")"#)),
            binary(r#"(component (core module (memory 1) (data (i32.const 8) "a")))"#),
        ] {
            let changed = data_beside_memory(&component).expect("a component");
            assert_eq!(pieces(&changed), pieces(&component));
        }
    }

    #[test]
    fn data_that_finds_no_memory_is_not_lost() {
        let component = binary(
            r#"(component (core module (import "env" "memory" (memory 1)) (data (i32.const 8) "a")))"#,
        );
        let error = data_beside_memory(&component).expect_err("no place for it");
        assert!(error.to_string().contains("has a memory"), "{error}");
    }
}

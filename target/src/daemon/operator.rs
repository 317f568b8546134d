//! The operator's part of a library: cartridges in and out of its import/export elements.

use std::sync::Arc;

use protocol::control::{ErrorKind, ExportRequest, Exported, Failure, ImportRequest, ImportWhat, Imported, OfChanger};

use super::{Daemon, refuse};
use crate::cartridge::NewMedium;
use crate::library::{ExportError, ImportError};
use crate::lun::Device;
use crate::lun::changer::Changer;
use crate::lun::tape::density;

/// What a new cartridge is to be.
fn new_medium(what: &ImportWhat) -> Result<NewMedium, Failure> {
    let ImportWhat::New { capacity, density, worm, layout, .. } = what else { return Ok(NewMedium::default()) };
    let generation = density.as_deref().map(density::by_name).transpose();
    let generation = generation.map_err(|error| Failure { kind: ErrorKind::Invalid, error })?;
    Ok(NewMedium { capacity: *capacity, density: generation.map(|generation| generation.density), worm: *worm, layout: *layout })
}

impl Daemon {
    /// Puts a cartridge into an import/export element.
    ///
    /// # Errors
    /// Why not, in words. The cartridge is then not in the library, or has a slot in it after the next look.
    pub async fn import(&self, request: ImportRequest) -> Result<Imported, Failure> {
        let changer = self.changer(&request.of)?;
        let new = new_medium(&request.what)?;
        let imported = tokio::task::spawn_blocking(move || match request.what {
            ImportWhat::Cartridge(folder) => changer.import(&folder),
            ImportWhat::New { barcode, .. } => changer.import_new(&barcode, &new),
        });
        let place = imported.await.map_err(|error| internal(&error))??;
        Ok(Imported { place: place.to_string() })
    }

    /// Takes a cartridge out of an import/export element.
    ///
    /// # Errors
    /// Why not, in words. The cartridge is then in the library.
    pub async fn export(&self, request: ExportRequest) -> Result<Exported, Failure> {
        let changer = self.changer(&request.of)?;
        let exported = tokio::task::spawn_blocking(move || changer.export(&request.barcode, request.to.as_deref()));
        Ok(Exported { folder: exported.await.map_err(|error| internal(&error))?? })
    }

    fn changer(&self, of: &OfChanger) -> Result<Arc<Changer>, Failure> {
        let mut found = Vec::new();
        for target in self.server.targets() {
            if of.target.as_ref().is_some_and(|name| !target.name().eq_ignore_ascii_case(name)) {
                continue;
            }
            for (number, device) in target.luns().all() {
                if let (Device::Changer(changer), true) = (device, of.lun.is_none_or(|lun| lun == number)) {
                    found.push(changer);
                }
            }
        }
        match found.as_slice() {
            [only] => Ok(Arc::clone(only)),
            [] => refuse(ErrorKind::NotFound, "there is no such changer"),
            _ => refuse(ErrorKind::Invalid, "there are several changers: name the target and the LUN of the one that is meant"),
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        let kind = match &error {
            ImportError::Cartridge(_) | ImportError::File { .. } => ErrorKind::Internal,
            _ => ErrorKind::Invalid,
        };
        Self { kind, error: error.to_string() }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let kind = match &error {
            ExportError::NotThere(_) => ErrorKind::NotFound,
            ExportError::File { .. } => ErrorKind::Internal,
            _ => ErrorKind::Invalid,
        };
        Self { kind, error: error.to_string() }
    }
}

fn internal(error: &tokio::task::JoinError) -> Failure {
    Failure { kind: ErrorKind::Internal, error: error.to_string() }
}

//! Making the device of a LUN from what is configured of it: the one place where stores, cartridges and names come together.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use protocol::control::spec::LunSpec;

use crate::config::{self, Disk as DiskConfig, Lun};
use crate::library::Libraries;
use crate::lun::Device;
use crate::lun::changer::Changer;
use crate::lun::common::{Common, CopyService, Identity};
use crate::lun::disk::Disk;
use crate::lun::tape::{Bell, Tape};
use crate::store::BlockStore;
use crate::store::null::NullStore;
use crate::store::raw::{RawSpec, RawStore};
use crate::volume::Volume;
use crate::xcopy::CopyManager;

/// What all devices of the target share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    /// Who carries out copies.
    pub copies: Arc<CopyManager>,
    /// Libraries, which a changer and its drives share.
    pub libraries: Arc<Libraries>,
    /// Rings when there may be sums to take.
    pub bell: Arc<Bell>,
    /// Where logical units keep what outlives a restart: reservations, mode pages.
    pub state: PathBuf,
}

/// Opens what is behind a LUN of `target`, and makes it where there is none yet. Blocks.
///
/// # Errors
/// Whatever cannot be had, by name.
pub(super) fn open_lun(target: &str, spec: &LunSpec, shared: &Shared) -> anyhow::Result<Device> {
    let lun = config::lun(spec).map_err(anyhow::Error::msg)?;
    let common = |path: &Path, product: &str| {
        let service: Arc<dyn CopyService> = shared.copies.clone();
        Common::new(identity(target, path, product, spec), Some(service)).keep_in(&shared.state)
    };
    let device = match lun {
        Lun::Disk(disk) => {
            let store = open_store(&disk).with_context(|| disk.path.display().to_string())?;
            let length = disk.options.block_length;
            anyhow::ensure!(
                store.size().is_multiple_of(length.bytes()),
                "{} has {} bytes, which is no whole number of {}-byte blocks",
                disk.path.display(),
                store.size(),
                length.0
            );
            let opened = Disk::open(common(&disk.path, "DISK")?, Volume::new(store), disk.options);
            Device::Disk(opened.with_context(|| disk.path.display().to_string())?)
        }
        Lun::Tape(tape) => {
            let opened = Tape::open(common(&tape.path, "TAPE")?, &tape.path, tape.new);
            let opened = opened.with_context(|| tape.path.display().to_string())?;
            opened.set_bell(Arc::clone(&shared.bell));
            Device::Tape(opened)
        }
        Lun::Changer(changer) => {
            let library = shared.libraries.open(&changer.library)?;
            library.set_bell(Arc::clone(&shared.bell));
            library.arrange(&changer.wanted)?;
            // A changer has no data: nothing is copied to or from it.
            let common = Common::new(identity(target, &changer.library, "LIBRARY", spec), None).keep_in(&shared.state)?;
            Device::Changer(Changer::new(common, library))
        }
        Lun::Drive(drive) => {
            let library = shared.libraries.open(&drive.library)?;
            let name = drive.library.join(format!("drive {}", drive.number + 1));
            let tape = Tape::empty(common(&name, "TAPE")?);
            library.set_bell(Arc::clone(&shared.bell));
            tape.set_bell(Arc::clone(&shared.bell));
            library.attach(drive.number, &tape)?;
            Device::Tape(tape)
        }
    };
    device.restore_modes().with_context(|| "its saved mode pages")?;
    Ok(device)
}

/// Writes out what a device that is no longer served still holds. Blocks.
pub(super) fn synchronize(device: &Device) -> io::Result<()> {
    match device {
        Device::Disk(disk) => disk.volume().sync(),
        Device::Tape(tape) => tape.sync(),
        // Every move was recorded before it was answered.
        Device::Changer(_) => Ok(()),
    }
}

fn identity(target: &str, path: &Path, product: &str, spec: &LunSpec) -> Identity {
    // The name stays the same whatever folder the target is started from.
    let backing = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let named = Identity::new(target, &backing.display().to_string(), spec.product.as_deref().unwrap_or(product));
    Identity { vendor: spec.vendor.clone().unwrap_or(named.vendor), serial: spec.serial.clone().unwrap_or(named.serial), ..named }
}

fn open_store(disk: &DiskConfig) -> io::Result<Arc<dyn BlockStore>> {
    if disk.path == Path::new("/dev/null") {
        let size = disk.size.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a disk of nothing wants a size"))?;
        return Ok(Arc::new(NullStore::new(size.0)));
    }
    let store = if disk.options.read_only {
        RawStore::open_read_only(&disk.path)?
    } else {
        RawStore::open(&RawSpec { path: PathBuf::clone(&disk.path), size: disk.size.map(|size| size.0) })?
    };
    Ok(Arc::new(store))
}

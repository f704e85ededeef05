//! Rows of images and kernels.

use redb::{ReadableTable, Table};

use super::codec::{ImageRow, KernelRow, decode, encode};
use super::{Failure, IMAGES, KERNELS, Store, StoreError, vms};
use crate::model::image::{ImageRecord, KernelRecord};
use crate::model::{ImageName, KernelName};

impl Store {
    /// All images, by name.
    pub fn images(&self) -> Result<Vec<ImageRecord>, StoreError> {
        self.read(|tx| all_images(&tx.open_table(IMAGES)?))
    }

    /// The image called `name`.
    pub fn image(&self, name: &ImageName) -> Result<ImageRecord, StoreError> {
        let found = self.images()?.into_iter().find(|image| image.name == *name);
        found.ok_or_else(|| StoreError::NotFound { what: "image", name: name.to_string() })
    }

    /// Writes an image's row; an earlier one of that name is refused while a VM uses it.
    pub fn put_image(&self, image: &ImageRecord) -> Result<(), StoreError> {
        self.write(|tx| {
            if tx.open_table(IMAGES)?.get(image.name.as_str())?.is_some() {
                refuse_used(vms::users(tx, |vm| vm.spec.image == image.name)?, "image", image.name.as_str())?;
            }
            put_row(&mut tx.open_table(IMAGES)?, image).map(drop)
        })
    }

    /// Writes the row of an image that is there and stays what it is for those who use it.
    pub fn replace_image(&self, image: &ImageRecord) -> Result<(), StoreError> {
        self.write(|tx| match put_row(&mut tx.open_table(IMAGES)?, image)? {
            true => Ok(()),
            false => Err(StoreError::NotFound { what: "image", name: image.name.to_string() }.into()),
        })
    }

    /// Removes an image's row, provided that no VM uses it.
    pub fn remove_image(&self, name: &ImageName) -> Result<(), StoreError> {
        self.write(|tx| {
            refuse_used(vms::users(tx, |vm| vm.spec.image == *name)?, "image", name.as_str())?;
            match tx.open_table(IMAGES)?.remove(name.as_str())? {
                Some(_) => Ok(()),
                None => Err(StoreError::NotFound { what: "image", name: name.to_string() }.into()),
            }
        })
    }

    /// All kernels, by name.
    pub fn kernels(&self) -> Result<Vec<KernelRecord>, StoreError> {
        self.read(|tx| {
            let mut kernels = Vec::new();
            for row in tx.open_table(KERNELS)?.iter()? {
                let (key, value) = row?;
                let KernelRow::V1(kernel) = decode("kernels", key.value(), value.value())?;
                kernels.push(kernel);
            }
            Ok(kernels)
        })
    }

    /// The kernel called `name`.
    pub fn kernel(&self, name: &KernelName) -> Result<KernelRecord, StoreError> {
        let found = self.kernels()?.into_iter().find(|kernel| kernel.name == *name);
        found.ok_or_else(|| StoreError::NotFound { what: "kernel", name: name.to_string() })
    }

    /// Writes a kernel's row; an earlier one of that name is refused while a VM uses it.
    pub fn put_kernel(&self, kernel: &KernelRecord) -> Result<(), StoreError> {
        self.write(|tx| {
            if tx.open_table(KERNELS)?.get(kernel.name.as_str())?.is_some() {
                refuse_used(vms::users(tx, |vm| vm.spec.kernel == kernel.name)?, "kernel", kernel.name.as_str())?;
            }
            let row = encode("kernels", &KernelRow::V1(kernel.clone()))?;
            tx.open_table(KERNELS)?.insert(kernel.name.as_str(), row.as_slice())?;
            Ok(())
        })
    }

    /// Removes a kernel's row, provided that no VM uses it.
    pub fn remove_kernel(&self, name: &KernelName) -> Result<(), StoreError> {
        self.write(|tx| {
            refuse_used(vms::users(tx, |vm| vm.spec.kernel == *name)?, "kernel", name.as_str())?;
            match tx.open_table(KERNELS)?.remove(name.as_str())? {
                Some(_) => Ok(()),
                None => Err(StoreError::NotFound { what: "kernel", name: name.to_string() }.into()),
            }
        })
    }
}

/// Writes all rows of images in their newest form.
pub(super) fn rewrite_images(tx: &redb::WriteTransaction) -> Result<(), Failure> {
    let mut table = tx.open_table(IMAGES)?;
    let images = all_images(&table)?;
    images.iter().try_for_each(|image| put_row(&mut table, image).map(drop))
}

fn all_images(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Vec<ImageRecord>, Failure> {
    let mut images = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        images.push(decode::<ImageRow>("images", key.value(), value.value())?.into());
    }
    Ok(images)
}

/// Writes an image's row; whether there was one of its name.
fn put_row(table: &mut Table<'_, &'static str, &'static [u8]>, image: &ImageRecord) -> Result<bool, Failure> {
    let row = encode("images", &ImageRow::V2(image.clone()))?;
    Ok(table.insert(image.name.as_str(), row.as_slice())?.is_some())
}

fn refuse_used(users: Option<String>, what: &'static str, name: &str) -> Result<(), StoreError> {
    match users {
        None => Ok(()),
        Some(users) => Err(StoreError::InUse { what, name: name.to_owned(), users }),
    }
}

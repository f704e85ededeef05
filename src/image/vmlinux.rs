//! Compressed kernel → the uncompressed ELF `vmlinux` that both monitors boot.

use super::ImageError;
use super::decompress::{Compression, decompress};

const ELF: &[u8] = b"\x7fELF";

/// The ELF kernel in `image`: itself, or what a bzImage carries as its payload
/// (Documentation/arch/x86/boot.rst, protocol 2.08 and later), or what is simply compressed.
pub fn extract_vmlinux(image: &[u8]) -> Result<Vec<u8>, ImageError> {
    if image.starts_with(ELF) {
        return Ok(image.to_vec());
    }
    let payload = match bzimage_payload(image)? {
        Some(payload) => payload,
        None => image,
    };
    let vmlinux = unpack(payload)?;
    // An arm64 `Image` is what its monitors boot; it says so at byte 56 (Documentation/arch/arm64/booting.rst).
    let is_arm64 = cfg!(target_arch = "aarch64") && vmlinux.get(56..60) == Some(b"ARM\x64");
    if vmlinux.starts_with(ELF) || is_arm64 {
        return Ok(vmlinux);
    }
    Err(ImageError::NotAKernel("what it contains is no ELF file".into()))
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, ImageError> {
    if payload.starts_with(ELF) || payload.get(56..60) == Some(b"ARM\x64") {
        return Ok(payload.to_vec());
    }
    let compression = Compression::of(payload).ok_or_else(|| {
        ImageError::NotAKernel("neither ELF nor bzImage, and not compressed with gzip, xz, zstd or lz4".into())
    })?;
    decompress(compression, payload)
        .map_err(|e| ImageError::NotAKernel(format!("its {compression:?} payload is damaged: {e}")))
}

/// `None` when `image` is no bzImage.
fn bzimage_payload(image: &[u8]) -> Result<Option<&[u8]>, ImageError> {
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Ok(None);
    }
    let version = number(image, 0x206, 2)?;
    if version < 0x208 {
        return Err(ImageError::NotAKernel(format!("boot protocol {version:#x} is older than 2.08 (Linux 2.6.24)")));
    }
    // "If the setup_sects field contains 0, the real value is 4."
    let sectors = match number(image, 0x1f1, 1)? {
        0 => 4,
        sectors => sectors,
    };
    let start = (sectors + 1) * 512 + number(image, 0x248, 4)?;
    let end = start + number(image, 0x24c, 4)?;
    let payload = usize::try_from(start).ok().zip(usize::try_from(end).ok()).and_then(|(s, e)| image.get(s..e));
    payload
        .map(Some)
        .ok_or_else(|| ImageError::NotAKernel(format!("cut off: its payload ends at {end} of {} bytes", image.len())))
}

fn number(image: &[u8], at: usize, size: usize) -> Result<u64, ImageError> {
    let bytes = image.get(at..at + size).ok_or_else(|| ImageError::NotAKernel("its header is cut off".into()))?;
    Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn elf() -> Vec<u8> {
        let mut elf = ELF.to_vec();
        elf.extend((0..300_000u32).flat_map(|n| (n / 7).to_le_bytes()));
        elf
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * 512];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&512u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    /// `None` where the tool is not installed.
    fn compressed(tool: &str, arguments: &[&str], data: &[u8]) -> Option<Vec<u8>> {
        let mut child = Command::new(tool).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let mut stdin = child.stdin.take().expect("piped");
        let data = data.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&data));
        let output = child.wait_with_output().expect("runs");
        writer.join().expect("joins").expect("written");
        assert!(output.status.success());
        Some(output.stdout)
    }

    #[test]
    fn an_elf_passes_through() {
        assert_eq!(extract_vmlinux(&elf()).expect("is a kernel"), elf());
    }

    #[test]
    fn every_compression_of_the_kernels_build_is_understood() {
        let ways: [(&str, &[&str]); 4] = [
            ("gzip", &["-c"]),
            // As scripts/xz_wrap.sh does on x86.
            ("xz", &["-c", "--check=crc32", "--x86", "--lzma2=dict=32MiB"]),
            ("zstd", &["-c", "-22", "--ultra"]),
            ("lz4", &["-l", "-c", "-9"]),
        ];
        let elf = elf();
        for (tool, arguments) in ways {
            let Some(mut payload) = compressed(tool, arguments, &elf) else { continue };
            if tool != "gzip" {
                payload.extend_from_slice(&(elf.len() as u32).to_le_bytes());
            }
            assert!(extract_vmlinux(&bzimage(&payload)).expect(tool) == elf, "{tool}");
        }
    }

    #[test]
    fn an_lz4_stream_of_several_blocks_is_put_together() {
        let mut big = ELF.to_vec();
        big.resize(20 << 20, 7);
        let Some(payload) = compressed("lz4", &["-l", "-c"], &big) else { return };
        assert!(extract_vmlinux(&bzimage(&payload)).expect("extracts") == big);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let mut gzip = Vec::new();
        let mut encoder = flate2::write::GzEncoder::new(&mut gzip, flate2::Compression::fast());
        encoder.write_all(&elf()).expect("compresses");
        encoder.finish().expect("compresses");
        let image = bzimage(&gzip);
        for end in (0..image.len()).step_by(97) {
            assert!(extract_vmlinux(&image[..end]).is_err(), "{end}");
        }
        for magic in [&b"\xfd7zXZ\0"[..], b"\x28\xb5\x2f\xfd", b"\x02\x21\x4c\x18", b"\x02\x21\x4c\x18\xff\0\0\0\x01"] {
            assert!(extract_vmlinux(&bzimage(magic)).is_err(), "{magic:?}");
        }
        assert!(extract_vmlinux(b"").is_err());
        assert!(extract_vmlinux(&[0; 4096]).is_err());
    }

    #[test]
    fn a_payload_that_is_no_elf_is_refused() {
        let mut gzip = Vec::new();
        let mut encoder = flate2::write::GzEncoder::new(&mut gzip, flate2::Compression::fast());
        encoder.write_all(b"hello").expect("compresses");
        encoder.finish().expect("compresses");
        assert!(extract_vmlinux(&bzimage(&gzip)).is_err());
    }
}

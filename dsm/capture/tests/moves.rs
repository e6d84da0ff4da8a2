//! Plain moves, vector stores, string stores and stores to a stack.

mod common;

use common::{PAGE, Region};
use std::arch::asm;
use std::arch::x86_64::*;

#[test]
fn each_width_changes_exactly_its_bytes() {
    let region = Region::new(1);
    region.fill(0, &[0xee; 64]);
    let value = 0x1122_3344_5566_7788u64;
    // SAFETY: the stores go to the view and are captured.
    unsafe {
        asm!("mov [{p}], {v:l}", "mov [{p} + 8], {v:x}", "mov [{p} + 16], {v:e}", "mov [{p} + 24], {v}",
            p = in(reg) region.at::<u8>(0), v = in(reg) value)
    };
    let bytes = region.bytes(0, 40);
    assert_eq!(bytes[..3], [0x88, 0xee, 0xee]);
    assert_eq!(bytes[8..11], [0x88, 0x77, 0xee]);
    assert_eq!(bytes[16..21], [0x88, 0x77, 0x66, 0x55, 0xee]);
    assert_eq!(bytes[24..33], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xee]);
    assert_eq!(region.log(), [(0, 1), (8, 2), (16, 4), (24, 8)]);
}

#[test]
fn high_bytes_immediates_and_conditions() {
    let region = Region::new(1);
    region.fill(32, &[7, 7]);
    // SAFETY: as above.
    unsafe {
        asm!("mov [rsi], ah", "mov qword ptr [rsi + 8], -2", "movnti [rsi + 16], rax", "movbe [rsi + 24], eax",
            "xor ecx, ecx", "setz [rsi + 32]", "setc [rsi + 33]", "mov [rsi + 4*rcx + 40], dh",
            in("rsi") region.at::<u8>(0), in("rax") 0x0102_0304_0506_0708u64, in("rdx") 0x4321u64, out("rcx") _)
    };
    assert_eq!(region.bytes(0, 2), [7, 0]);
    assert_eq!(region.word(8), (-2i64) as u64);
    assert_eq!(region.word(16), 0x0102_0304_0506_0708);
    assert_eq!(region.bytes(24, 5), [5, 6, 7, 8, 0]);
    assert_eq!(region.bytes(32, 2), [1, 0]);
    assert_eq!(region.bytes(40, 2), [0x43, 0]);
}

#[test]
fn vector_stores_arrive_whole() {
    let region = Region::new(1);
    let bytes: [u8; 32] = std::array::from_fn(|index| index as u8 + 1);
    // SAFETY: reads the array.
    let low = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    // SAFETY: the stores are captured.
    unsafe {
        asm!("movups [{p}], {x}", "movdqa [{p} + 16], {x}", "movntdq [{p} + 32], {x}", "movq [{p} + 48], {x}",
            "movd [{p} + 56], {x}", "movhps [{p} + 64], {x}", "pextrw [{p} + 72], {x}, 3", "movdqu [{p} + 81], {x}",
            p = in(reg) region.at::<u8>(0), x = in(xmm_reg) low)
    };
    assert_eq!(region.log(), [(0, 16), (16, 16), (32, 16), (48, 8), (56, 4), (64, 8), (72, 2), (81, 16)]);
    assert_eq!(region.bytes(81, 16), bytes[..16]);
    assert_eq!(region.bytes(64, 8), bytes[8..16]);
    assert_eq!(region.bytes(72, 2), bytes[6..8]);
    if !is_x86_feature_detected!("avx2") {
        common::skipped("the processor has no AVX2");
        return;
    }
    store_ymm(region, &bytes);
    assert_eq!(region.log(), [(256, 32), (289, 32), (336, 16), (364, 4), (372, 4)]);
    assert_eq!(region.bytes(289, 32), bytes);
    assert_eq!(region.bytes(336, 16), bytes[16..]);
    assert_eq!(region.bytes(360, 4), [0; 4]);
    assert_eq!(region.bytes(364, 4), bytes[4..8]);
}

fn store_ymm(region: &Region, bytes: &[u8; 32]) {
    // Lanes 1 and 3.
    let selector = [0u32, 1 << 31, 0, 1 << 31];
    // SAFETY: the caller saw AVX2; the loads are of arrays, the stores are captured.
    unsafe {
        asm!("vmovdqu ymm1, [{b}]", "vmovdqu xmm2, [{s}]", "vmovaps [{p} + 256], ymm1", "vmovups [{p} + 289], ymm1",
            "vextracti128 [{p} + 336], ymm1, 1", "vpmaskmovd [{p} + 360], xmm2, xmm1", "vzeroupper",
            p = in(reg) region.at::<u8>(0), b = in(reg) bytes, s = in(reg) &selector,
            out("ymm1") _, out("ymm2") _)
    };
}

#[test]
fn masked_bytes() {
    let region = Region::new(1);
    region.fill(0, &[9; 16]);
    let selector = [0x80u8, 0, 0x80, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff];
    // SAFETY: as above.
    unsafe {
        asm!("movdqu xmm2, [{s}]", "pxor xmm1, xmm1", "maskmovdqu xmm1, xmm2", s = in(reg) &selector,
            in("rdi") region.at::<u8>(0), out("xmm1") _, out("xmm2") _)
    };
    assert_eq!(region.log(), [(0, 1), (2, 2), (15, 1)]);
    assert_eq!(region.bytes(0, 16), [0, 9, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 0]);
}

#[test]
fn repeated_stores_in_both_directions() {
    let region = Region::new(4);
    let (mut to, mut count) = (region.at::<u8>(100), 3 * PAGE);
    // SAFETY: as above.
    unsafe { asm!("rep stosb", inout("rdi") to, inout("rcx") count, in("al") 0x5au8) };
    assert_eq!((to, count), (region.at::<u8>(100 + 3 * PAGE), 0));
    assert_eq!(region.bytes(99, 3 * PAGE + 2).iter().filter(|byte| **byte == 0x5a).count(), 3 * PAGE);
    assert_eq!(region.log().iter().map(|(_, len)| len).sum::<usize>(), 3 * PAGE);
    let mut to = region.at::<u8>(2 * PAGE);
    // SAFETY: as above; the direction is put back.
    unsafe { asm!("std", "rep stosd", "cld", inout("rdi") to, inout("rcx") 100u64 => _, in("eax") 0x0102_0304) };
    assert_eq!(to, region.at::<u8>(2 * PAGE - 400));
    assert_eq!(region.bytes(2 * PAGE - 396, 4), [4, 3, 2, 1]);
    assert_eq!(region.bytes(2 * PAGE - 400, 4), [0x5a; 4]);
    assert_eq!(region.bytes(2 * PAGE, 5), [4, 3, 2, 1, 0x5a]);
}

#[test]
fn an_overlapping_copy_repeats_its_pattern() {
    let region = Region::new(3);
    region.fill(0, b"abc");
    // SAFETY: as above.
    unsafe {
        asm!("rep movsb", inout("rsi") region.at::<u8>(0) => _, inout("rdi") region.at::<u8>(3) => _,
            inout("rcx") 9000u64 => _)
    };
    let bytes = region.bytes(0, 9003);
    assert!(bytes.iter().enumerate().all(|(index, byte)| *byte == b"abc"[index % 3]));
    assert_eq!(region.bytes(9003, 2), [0, 0]);
}

#[test]
fn strings_that_leave_the_region_are_finished_by_the_processor() {
    let region = Region::new(1);
    // SAFETY: the region lies between two ordinary pages.
    unsafe { asm!("rep stosb", inout("rdi") region.at::<u8>(PAGE - 8) => _, inout("rcx") 16u64 => _, in("al") 3u8) };
    assert_eq!(region.log(), [(PAGE - 8, 8)]);
    // SAFETY: the ordinary page behind the region.
    assert_eq!(unsafe { region.at::<u64>(PAGE).read_volatile() }, 0x0303_0303_0303_0303);
    let before = region.at::<u8>(0).wrapping_sub(8);
    // SAFETY: as above.
    unsafe { asm!("rep stosb", inout("rdi") before => _, inout("rcx") 16u64 => _, in("al") 4u8) };
    assert_eq!(region.log(), [(0, 8)]);
    assert_eq!(region.bytes(0, 9), [4, 4, 4, 4, 4, 4, 4, 4, 0]);
    assert_eq!(region.genuine(), 0);
}

#[test]
fn libc_writes_into_the_view() {
    let region = Region::new(8);
    let text = c"from one string to another";
    let data: Vec<u8> = (0..5 * PAGE).map(|index| (index * 7) as u8).collect();
    // SAFETY: all three write inside the view.
    unsafe { libc::memset(region.at(10), 0x77, 5000) };
    // SAFETY: as above.
    unsafe { libc::strcpy(region.at(6000), text.as_ptr()) };
    // SAFETY: as above.
    unsafe { libc::memcpy(region.at(7001), data.as_ptr().cast(), data.len()) };
    assert_eq!(region.bytes(9, 1), [0]);
    assert_eq!(region.bytes(10, 5000), [0x77; 5000]);
    assert_eq!(region.bytes(6000, 27), text.to_bytes_with_nul());
    assert_eq!(region.bytes(7001, data.len()), data);
}

#[test]
fn a_stack_in_the_region() {
    let region = Region::new(2);
    region.fill(PAGE, &0x1111u64.to_le_bytes());
    let top = region.at::<u8>(PAGE);
    let (left, called): (u64, u64);
    // SAFETY: while RSP points into the view nothing else uses the stack; RSP and RBP are put back.
    unsafe {
        asm!("mov r12, rsp", "mov r13, rbp", "mov rsp, {top}", "push rsp", "push 5", "push qword ptr [{top}]",
            "xor r14d, r14d", "call 2f", "jmp 3f", "2:", "inc r14", "ret", "3:", "enter 16, 2", "mov r15, rsp",
            "mov rsp, r12", "mov rbp, r13", top = in(reg) top, out("r12") _, out("r13") _, out("r14") called,
            out("r15") left)
    };
    assert_eq!(called, 1);
    assert_eq!(region.word(PAGE - 8), top as u64);
    assert_eq!((region.word(PAGE - 16), region.word(PAGE - 24)), (5, 0x1111));
    // ENTER with two levels: RBP, a copy from the outer frame, the new frame pointer, and 16 bytes.
    assert_eq!(left, top as u64 - 24 - 24 - 16);
    assert_eq!(region.word(PAGE - 48), top as u64 - 32);
}

#[test]
fn pop_to_memory_uses_the_new_stack_pointer() {
    let region = Region::new(1);
    let stack = region.at::<u64>(512);
    region.fill(512, &77u64.to_le_bytes());
    let after: u64;
    // SAFETY: as above.
    unsafe {
        asm!("mov r12, rsp", "mov rsp, {s}", "pop qword ptr [rsp + 8]", "mov {a}, rsp", "mov rsp, r12",
            s = in(reg) stack, a = out(reg) after, out("r12") _)
    };
    assert_eq!(after, stack as u64 + 8);
    assert_eq!(region.word(512 + 16), 77);
}

#[test]
fn stores_that_straddle_the_end_are_genuine_faults() {
    let region = Region::new(1);
    let place = region.at::<u64>(PAGE - 4);
    // SAFETY: the page behind the region is ordinary, and the handler makes the view writable.
    unsafe { place.write_unaligned(1) };
    assert_eq!((region.genuine(), region.log().len()), (1, 0));
    region.protect();
    // SAFETY: as above.
    unsafe { asm!("lock inc qword ptr [{}]", in(reg) place) };
    assert_eq!((region.genuine(), region.log().len()), (1, 0));
    region.protect();
    // SAFETY: as above.
    unsafe { region.at::<u64>(PAGE - 8).write_volatile(1) };
    assert_eq!((region.genuine(), region.log().len()), (0, 1));
}

#[test]
fn an_instruction_at_the_end_of_a_code_page() {
    let region = Region::new(1);
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let code = common::map(0, 2 * PAGE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, anonymous, -1);
    // The second page is not there: `mov [rdi], al; jmp -6` is at the very end, and `ret` where it jumps to.
    let bytes = [0xc3u8, 0x90, 0x88, 0x07, 0xeb, 0xfa];
    let start = code + PAGE - bytes.len();
    for (index, byte) in bytes.iter().enumerate() {
        // SAFETY: inside the page.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(start + index).write_volatile(*byte) };
    }
    let behind = std::ptr::with_exposed_provenance_mut(code + PAGE);
    // SAFETY: the second page is ours.
    assert_eq!(unsafe { libc::munmap(behind, PAGE) }, 0);
    for round in 0..3u8 {
        // SAFETY: the code stores AL and returns.
        unsafe { asm!("call {c}", c = in(reg) start + 2, in("rdi") region.at::<u8>(5), in("al") round) };
        assert_eq!(region.bytes(5, 1), [round]);
    }
    // Now one whose bytes lie on both sides: `mov byte ptr [rdi], imm8; ret`.
    let fixed = anonymous | libc::MAP_FIXED;
    common::map(code + PAGE, PAGE, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, fixed, -1);
    for round in 10..13u8 {
        for (index, byte) in [0xc6u8, 0x07, round, 0xc3].iter().enumerate() {
            let place = std::ptr::with_exposed_provenance_mut::<u8>(code + PAGE - 2 + index);
            // SAFETY: inside the two pages.
            unsafe { place.write_volatile(*byte) };
        }
        // SAFETY: the code stores its immediate and returns. Changed code is decoded anew.
        unsafe { asm!("call {c}", c = in(reg) code + PAGE - 2, in("rdi") region.at::<u8>(5)) };
        assert_eq!(region.bytes(5, 1), [round]);
    }
}

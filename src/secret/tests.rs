use super::*;

#[test]
fn what_is_wiped_is_zero() {
    let mut secret = Secret::copy_of(&[7; 64]);
    assert_eq!(*secret, [7; 64]);
    secret.wipe();
    assert_eq!(*secret, [0; 64]);
}

#[test]
fn arrays_are_equal_only_if_every_bit_is() {
    let a: [u8; 32] = core::array::from_fn(|at| at as u8);
    assert!(ct_eq(&a, &a));
    for bit in 0..256 {
        let mut b = a;
        b[bit / 8] ^= 1 << (bit % 8);
        assert!(!ct_eq(&a, &b), "bit {bit}");
    }
}

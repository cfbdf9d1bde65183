(* No two uses of HKDF under one key have the same input, whatever trailer, salt or header they have (docs/FORMAT.md A4,
   B2, C1 and D6).

   The strings are those of src/labels.rs, under the same names; the test `proofs::the_labels_are_those_of_the_proof`
   compares them. *)

From Coq Require Import List String Lia.
From Coq.Init Require Byte.
Import ListNotations.
Open Scope string_scope.

Notation bytes := (list Byte.byte).

Definition ascii (text : string) : bytes := list_byte_of_string text.

Definition EXTRACT := "dekseal/v2".
Definition PAYLOAD_EXTRACT := "dekseal/v2 payload".
Definition SALT_KEY := "dekseal/v2 salt".
Definition WRAP_KEY := "dekseal/v2 wrap".
Definition BLOB_KEY := "dekseal/v2 key".
Definition KEYRING_MAC := "dekseal/v2 keyring".
Definition KEYRING_CHECK := "dekseal/v2 keyring check".
Definition SNAPSHOT_MAC := "dekseal/v2 snapshot".

Open Scope list_scope.

(* The secrets that HKDF-Expand is keyed with. *)
Inductive key := PrkOfCmkVersion | WrapKey | PrkOfDek.

Inductive use := SaltKey | WrapKeyUse | BlobKey | KeyringMac | KeyringCheck | SnapshotMac | Payload.

Definition key_of (u : use) : key :=
  match u with
  | SaltKey | WrapKeyUse => PrkOfCmkVersion
  | BlobKey | KeyringMac | KeyringCheck | SnapshotMac => WrapKey
  | Payload => PrkOfDek
  end.

Definition label (u : use) : bytes :=
  match u with
  | SaltKey => ascii SALT_KEY
  | WrapKeyUse => ascii WRAP_KEY
  | BlobKey => ascii BLOB_KEY
  | KeyringMac => ascii KEYRING_MAC
  | KeyringCheck => ascii KEYRING_CHECK
  | SnapshotMac => ascii SNAPSHOT_MAC
  | Payload => []
  end.

(* The length of what follows the label: a trailer, a salt, or the first bytes of a payload's header. *)
Definition input_length (u : use) : nat :=
  match u with
  | SaltKey | WrapKeyUse => 40
  | BlobKey => 32
  | KeyringMac | KeyringCheck | SnapshotMac => 0
  | Payload => 44
  end.

(* The number of blocks of 32 bytes that HKDF-Expand makes. *)
Definition blocks (u : use) : nat := match u with Payload => 2 | _ => 1 end.

(* An `info` of this use. *)
Inductive info (u : use) : bytes -> Prop :=
| of_input : forall input, List.length input = input_length u -> info u (label u ++ input).

(* A message that HKDF-Expand gives to HMAC: RFC 5869, section 2.3. The second block also has the first one in front. *)
Inductive message (u : use) : bytes -> Prop :=
| first_block : forall i, info u i -> message u (i ++ [Byte.x01])
| second_block : forall i block, info u i -> blocks u = 2 -> List.length block = 32 ->
    message u (block ++ i ++ [Byte.x02]).

Lemma info_length : forall u i, info u i -> List.length i = List.length (label u) + input_length u.
Proof. intros u i [input L]. rewrite app_length. now rewrite L. Qed.

Lemma info_label : forall u i, info u i -> firstn (List.length (label u)) i = label u.
Proof. intros u i [input _]. rewrite firstn_app, PeanoNat.Nat.sub_diag, firstn_all. apply app_nil_r. Qed.

(* Two uses under one key never have the same `info`. *)
Theorem infos_differ : forall u v i, key_of u = key_of v -> info u i -> info v i -> u = v.
Proof.
  intros u v i K U V. assert (L := info_length _ _ U). rewrite (info_length _ _ V) in L.
  assert (U' := info_label _ _ U). assert (V' := info_label _ _ V).
  (* Those of equal length have different labels. *)
  destruct u, v; try discriminate K; try reflexivity; try discriminate L;
    match type of U' with _ = ?a => match type of V' with _ = ?b =>
      assert (a = b) as E by (transitivity (firstn (List.length a) i); [symmetry; exact U' | exact V']); discriminate E
    end end.
Qed.

(* Two uses under one key never give HMAC the same message. *)
Theorem messages_differ : forall u v m, key_of u = key_of v -> message u m -> message v m -> u = v.
Proof.
  intros u v m K U V. destruct U as [i U | i block U N L]; inversion V as [j V' E | j block' V' N' L' E]; subst.
  - apply app_inj_tail in E. destruct E as [<- _]. now apply infos_differ with j.
  - destruct u, v; try discriminate N'; try discriminate K. reflexivity.
  - destruct u, v; try discriminate N; try discriminate K. reflexivity.
  - destruct u, v; try discriminate N; try discriminate N'. reflexivity.
Qed.

(* The two blocks of a payload's keys have different messages. *)
Theorem blocks_differ : forall u i j block, info u i -> info u j -> List.length block = 32 ->
  i ++ [Byte.x01] <> block ++ j ++ [Byte.x02].
Proof.
  intros u i j block U V L E. apply (f_equal (@List.length _)) in E. rewrite !app_length, L in E.
  rewrite (info_length _ _ U), (info_length _ _ V) in E. cbn [List.length] in E. lia.
Qed.

Definition extends (long short : bytes) : Prop := exists rest, long = (short ++ rest)%list.

(* Under one key the `info` of a use extends into that of another one only within the uses of a keyring file, and from
   there into the key of a blob. HMAC has no length extension, so only equal messages would matter, and there are none:
   `messages_differ`. *)
Theorem extensions : forall u v i j, key_of u = key_of v -> u <> v -> info u i -> info v j -> extends j i ->
  (u = KeyringMac /\ v = KeyringCheck) \/ (u = KeyringMac /\ v = BlobKey) \/ (u = KeyringCheck /\ v = BlobKey).
Proof.
  intros u v i j K D U V [rest ->].
  destruct u, v; try discriminate K; try (now destruct D); try (now auto); exfalso;
    destruct U as [a A]; inversion V as [b B E];
    cbn in E; try discriminate E;
    apply (f_equal (@List.length _)) in E; cbn in E, A, B; rewrite ?app_length, ?A, ?B in E; lia.
Qed.

(* Those three do occur. *)
Example keyring_check_extends_keyring_mac : extends (label KeyringCheck) (label KeyringMac).
Proof. now exists (ascii " check"). Qed.

(* HMAC pads a key with zeros to 64 bytes. The two salts of HKDF-Extract differ also when they are padded. *)
Definition padded (salt : bytes) : bytes := (salt ++ repeat Byte.x00 (64 - List.length salt))%list.

Theorem extract_salts_differ : padded (ascii EXTRACT) <> padded (ascii PAYLOAD_EXTRACT).
Proof. intros E. discriminate E. Qed.

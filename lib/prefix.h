/* prefix.h - names for the library's internal functions that begin with hpkv_.
 *
 * The static library contains functions of src/codec/json.h and its own internal ones. They must
 * not clash with functions of the program that it is linked into. Included before everything else.
 */
#pragma once

#define json_array_begin hpkv_json_array_begin
#define json_array_next hpkv_json_array_next
#define json_bytes_hash hpkv_json_bytes_hash
#define json_escapable hpkv_json_escapable
#define json_escape hpkv_json_escape
#define json_is_utf8 hpkv_json_is_utf8
#define json_number_integer hpkv_json_number_integer
#define json_object_begin hpkv_json_object_begin
#define json_object_next hpkv_json_object_next
#define json_string_decode hpkv_json_string_decode
#define json_string_find hpkv_json_string_find
#define json_string_hash hpkv_json_string_hash
#define json_string_is hpkv_json_string_is
#define json_string_raw hpkv_json_string_raw
#define json_string_same hpkv_json_string_same

/* The library's own internal functions. */
#define channel_close hpkv_channel_close
#define channel_flush hpkv_channel_flush
#define channel_init hpkv_channel_init
#define channel_line hpkv_channel_line
#define channel_open hpkv_channel_open
#define channel_queue hpkv_channel_queue
#define decode_answer hpkv_decode_answer
#define decode_event hpkv_decode_event
#define decode_failure hpkv_decode_failure
#define decode_free hpkv_decode_free
#define decode_id hpkv_decode_id
#define decode_is_farewell hpkv_decode_is_farewell
#define decode_is_outcome_unknown hpkv_decode_is_outcome_unknown
#define decode_is_shutting_down hpkv_decode_is_shutting_down
#define decode_line hpkv_decode_line
#define encode_request hpkv_encode_request
#define handle_destroy hpkv_handle_destroy
#define handle_find_socket hpkv_handle_find_socket
#define handle_poll hpkv_handle_poll
#define handle_start hpkv_handle_start
#define handle_step hpkv_handle_step
#define text_add hpkv_text_add
#define text_addf hpkv_text_addf
#define text_free hpkv_text_free
#define text_json hpkv_text_json
#define text_room hpkv_text_room
#define text_take hpkv_text_take
#define topics_answered hpkv_topics_answered
#define topics_clear hpkv_topics_clear
#define topics_ended hpkv_topics_ended
#define topics_sent hpkv_topics_sent
